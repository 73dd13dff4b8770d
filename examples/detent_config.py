"""The settings of the examples."""

from detent import define_config

config = define_config(project="examples", dirs=["tasks"])
