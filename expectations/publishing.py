from expectations.rules import Suite
def suites(connection)->list[Suite]: return []
