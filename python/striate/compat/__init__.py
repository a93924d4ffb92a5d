"""Drop-ins under the names of the published packages, one module for each."""
