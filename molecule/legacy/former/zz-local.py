# Wins over all others.
config = {"zz": "local", "endpoints": {"fas.fas01": ["tcp://fas01:3014"]}}
