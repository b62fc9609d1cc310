"""The platform around the models: settings, servers, simulation, privacy, refresh, command line."""
