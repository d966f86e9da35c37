"""Everything a command line needs: parsing, errors, help, configuration files, templates."""
