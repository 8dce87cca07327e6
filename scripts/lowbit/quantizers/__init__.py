"""The quantizers, one implementation per module.

A module has `LIBRARIES`, the distributions whose versions the record names, and one of

    quantize(weight, **settings) -> QuantizedLayer
        for a float32 weight `[out, in]` on the CPU, where nothing else is needed;
    quantize_block(block, **settings) -> QuantizedBlock
        for a `CalibratedBlock`, where the quantizer looks at activations.

Beside the latter it may have `finish(model, settings, ...)`, called once with all blocks; see
`lowbit.quantization.quantize_model`. Which module belongs to which quantizer of the config, and in
which environment it runs, is said in `study.config.methods`; settings are checked there.
"""
