"""Studies: paths -> tree of runs -> executed, resumed, cached."""
