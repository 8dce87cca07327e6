"""The library: functions on arrays and modules. No Snakemake, no config, no paths of a study."""
