"""Models and data sets of the Hugging Face hub, or of any server that speaks its protocol.

`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE` and `HF_TOKEN` mean what they mean to huggingface_hub,
which is imported only where the hub is asked.
"""

from lowbit.inputs.hub.address import DATASET, MODEL, Address, parse
from lowbit.inputs.hub.downloads import download
from lowbit.inputs.hub.listings import FOLDER, File, Listing, listing, matching
from lowbit.inputs.hub.problems import NotThere, Unreachable

__all__ = [
    "DATASET",
    "FOLDER",
    "MODEL",
    "Address",
    "File",
    "Listing",
    "NotThere",
    "Unreachable",
    "download",
    "listing",
    "matching",
    "parse",
]
