"""Names that the config, files and tables share; needs the standard library only."""

FULL = "full"
"""The unquantized model, reserved among the names of methods."""

LARGE, CONTROL = "large", "control"
SETS = (LARGE, CONTROL)
"""A method's sets of documents, see `lowbit.analysis.error_sets`."""
SET_TITLES = {LARGE: "D_large", CONTROL: "D_ctrl"}
