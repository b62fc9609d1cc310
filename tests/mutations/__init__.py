"""Tests of the tests: each fault that is put into a model must make at least one dbt test fail."""
