"""Quantized checkpoints as people publish them, read as methods; one format per module.

A format's module has `MARKERS`, the endings of the tensors that show a layer to be quantized, and

    read(checkpoint, name) -> QuantizedLayer
        exactly what the library that wrote the layer `name` stored.

`description` needs no torch, so that a config check can read what a checkpoint's config.json says;
`reader` puts the layers of a whole checkpoint beside the model they were quantized from.
"""
