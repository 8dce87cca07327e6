"""The quantization methods a config may name: their settings, and where each is implemented.

A method is one entry under `methods:`. Its `quantizer` chooses the class here, and `backend`, where
there are several, the implementation. A new quantizer is one subclass of `Method` listed in
`METHODS` and its module in `lowbit/quantizers/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lowbit.errors import InputError
from lowbit.inputs.hub import Listing
from lowbit.quantization.published.description import describe_checkpoint, outline_checkpoint
from study.config.sections import section_settings

BITSANDBYTES_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Backend:
    """Where a quantizer is implemented."""

    module: str
    """Dotted name: `lowbit.quantizers.rtn`."""
    environment: str
    """It runs in `envs/<environment>.yaml`."""


class Method(BaseModel):
    """One way to quantize. Subclasses add the settings of their quantizer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    BACKENDS: ClassVar[Mapping[str, Backend]]
    """Implementations by name, the default first."""
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)
    GROUP_WORDS: ClassVar[tuple[str, ...]] = ("row", "tensor")
    """Words that `group_size` may be instead of a number."""
    GROUP_MULTIPLE: ClassVar[int] = 1
    """A number for `group_size` must be a multiple of this."""

    quantizer: str
    """Name of the quantizer; it decides which other keys there are."""
    bits: int
    """Bits per weight code."""
    group_size: int | Literal["row", "tensor"]
    """Weights that share a scale, along the input dimension; `row` or `tensor` for all of one."""
    calibration: str | None = None
    """Name of the calibration set, of those under `calibration`; without it the first. A quantizer
    that needs none measures its output error there."""

    @field_validator("bits")
    @classmethod
    def _bits_are_supported(cls, bits: int, info: ValidationInfo) -> int:
        if bits not in cls.BITS:
            listed = ", ".join(map(str, cls.BITS))
            raise ValueError(
                f"is {bits}, but {info.data['quantizer']} supports {listed}; write one of these"
            )
        return bits

    @field_validator("group_size", mode="before")
    @classmethod
    def _group_size_is_supported(cls, value: Any) -> Any:
        if value in cls.GROUP_WORDS:
            return value
        if type(value) is int and value > 0 and value % cls.GROUP_MULTIPLE == 0:
            return value
        multiple = f" that is a multiple of {cls.GROUP_MULTIPLE}" if cls.GROUP_MULTIPLE > 1 else ""
        words = "".join(f", or {word}" for word in cls.GROUP_WORDS)
        raise ValueError(f"is {value!r}; write a number of weights{multiple}, such as 64{words}")

    @property
    def backend_name(self) -> str:
        """The backend chosen, or the only one."""
        return getattr(self, "backend", next(iter(self.BACKENDS)))

    @property
    def implementation(self) -> Backend:
        """Where the method is implemented."""
        return self.BACKENDS[self.backend_name]

    def described(self) -> dict[str, Any]:
        """What analyses read of the method."""
        return self.model_dump()

    def settings(self) -> dict[str, Any]:
        """What the implementation is called with."""
        return self.model_dump(exclude={"quantizer", "backend", "calibration"})

    def grouped_width(self, outputs: int, inputs: int) -> int:
        """The width that the group size must divide, for a weight `[outputs, inputs]`."""
        return inputs


class Rtn(Method):
    """Round to nearest: a uniform grid between the smallest and largest weight of each group."""

    BACKENDS = {"own": Backend("lowbit.quantizers.rtn", "core")}
    model_config = section_settings(
        {"quantizer": "rtn", "bits": 3, "group_size": 64, "symmetric": False}
    )

    quantizer: Literal["rtn"]
    symmetric: bool = False
    """Whether the grid is symmetric about zero (no zero point)."""


class Nf(Method):
    """Normal-float: the quantiles of a normal distribution as levels, scaled per group."""

    BACKENDS = {
        "own": Backend("lowbit.quantizers.nf", "core"),
        "bitsandbytes": Backend("lowbit.quantizers.nf_bitsandbytes", "bitsandbytes"),
    }
    model_config = section_settings({"quantizer": "nf", "bits": 3, "group_size": 64})

    quantizer: Literal["nf"]
    backend: Literal["own", "bitsandbytes"] = "own"
    """`bitsandbytes` has 4 bits only."""
    double_quantization: bool = False
    """Whether the scales are quantized too (backend bitsandbytes only)."""

    @model_validator(mode="after")
    def _backend_can(self) -> "Nf":
        if self.backend == "bitsandbytes":
            _check_bitsandbytes(self)
        elif self.double_quantization:
            raise ValueError("double_quantization: true needs backend: bitsandbytes")
        return self


FitOrNumber = float | Literal["fit"]


def _fit_or_number(low: float, high: float) -> BeforeValidator:
    """Refuse what is neither `fit` nor a number from `low` to `high`."""

    def check(value: Any) -> Any:
        if value == "fit" or (type(value) in (int, float) and low <= value <= high):
            return value
        raise ValueError(f"is {value!r}; write a number from {low:g} to {high:g}, or fit")

    return BeforeValidator(check)


class Power(Method):
    """A uniform grid for sign(x) |x|**exponent, as the cube root of the perturbation paper."""

    BACKENDS = {"own": Backend("lowbit.quantizers.power", "core")}
    model_config = section_settings({"quantizer": "power", "bits": 3, "group_size": 64})

    quantizer: Literal["power"]
    exponent: Annotated[FitOrNumber, _fit_or_number(0.1, 2)] = 1 / 3
    """From 0.1 to 2; 1 is the uniform grid. `fit`: of the least squared error, for each layer."""


class Sigmoid(Method):
    """A uniform grid for a logistic function of the weight, centred and scaled."""

    BACKENDS = {"own": Backend("lowbit.quantizers.sigmoid", "core")}
    model_config = section_settings({"quantizer": "sigmoid", "bits": 3, "group_size": 64})

    quantizer: Literal["sigmoid"]
    steepness: Annotated[FitOrNumber, _fit_or_number(0.1, 20)] = 3.0
    """Change of the logistic function's argument from 0 to the group's largest weight; `fit`: of
    the least squared error, for each layer."""


class Log(Method):
    """A uniform grid for the mu-law of the weight."""

    BACKENDS = {"own": Backend("lowbit.quantizers.log", "core")}
    model_config = section_settings({"quantizer": "log", "bits": 3, "group_size": 64})

    quantizer: Literal["log"]
    mu: Annotated[FitOrNumber, _fit_or_number(0.01, 1e6)] = 255.0
    """How much finer the grid is at 0 than at the ends; 255 is that of telephony. `fit`: of the
    least squared error, for each layer."""


class Piecewise(Method):
    """Two uniform grids, a fine one around 0 and a coarse one for the tails, as PWLQ."""

    BACKENDS = {"own": Backend("lowbit.quantizers.piecewise", "core")}
    model_config = section_settings({"quantizer": "piecewise", "bits": 3, "group_size": 64})

    quantizer: Literal["piecewise"]
    break_point: Annotated[FitOrNumber, _fit_or_number(0.01, 0.5)] = "fit"
    """Where they meet, as a share of the group's largest weight; `fit`: of the least squared error,
    for each layer."""


class LloydMax(Method):
    """The levels of the least squared error for each layer: k-means of its scaled weights."""

    BACKENDS = {"own": Backend("lowbit.quantizers.lloyd_max", "core")}
    model_config = section_settings({"quantizer": "lloyd_max", "bits": 3, "group_size": 64})

    quantizer: Literal["lloyd_max"]


class Fp(Method):
    """Four-bit floating point (sign, two bits of exponent, one of mantissa), by bitsandbytes."""

    BACKENDS = {"bitsandbytes": Backend("lowbit.quantizers.fp_bitsandbytes", "bitsandbytes")}
    BITS = (4,)
    GROUP_WORDS = ()
    model_config = section_settings({"quantizer": "fp", "bits": 4, "group_size": 64})

    quantizer: Literal["fp"]
    double_quantization: bool = False
    """Whether the scales are quantized too."""

    @model_validator(mode="after")
    def _backend_can(self) -> "Fp":
        _check_bitsandbytes(self)
        return self


def _check_bitsandbytes(method: Method) -> None:
    """Raise unless bitsandbytes has a kernel for these bits and this block size."""
    if method.bits != 4:
        raise ValueError("backend: bitsandbytes has bits: 4 only; write bits: 4 or backend: own")
    if method.group_size not in BITSANDBYTES_BLOCKS:
        listed = ", ".join(map(str, BITSANDBYTES_BLOCKS))
        raise ValueError(f"backend: bitsandbytes needs group_size to be one of {listed}")


class Hqq(Method):
    """Half-quadratic quantization, by the hqq package."""

    BACKENDS = {"hqq": Backend("lowbit.quantizers.hqq", "hqq")}
    BITS = (2, 3, 4, 5, 6, 8)
    GROUP_WORDS = ("row",)
    GROUP_MULTIPLE = 8
    model_config = section_settings({"quantizer": "hqq", "bits": 3, "group_size": 64, "axis": 1})

    quantizer: Literal["hqq"]
    axis: Literal[0, 1] = 1
    """Dimension along which groups run: 1 along the inputs, 0 along the outputs."""

    @field_validator("axis")
    @classmethod
    def _rows_are_grouped_along_inputs(cls, axis: int, info: ValidationInfo) -> int:
        if axis == 0 and info.data.get("group_size") == "row":
            raise ValueError("is 0, but group_size: row needs axis: 1; write group_size: 64 or so")
        return axis

    def grouped_width(self, outputs: int, inputs: int) -> int:
        """With axis 0, groups run along the outputs."""
        return inputs if self.axis == 1 else outputs


class Gptq(Method):
    """GPTQ (arXiv 2210.17323): columns one by one, each error made up for by those that follow."""

    BACKENDS = {
        "auto-gptq": Backend("lowbit.quantizers.gptq_auto_gptq", "archived"),
        "gptqmodel": Backend("lowbit.quantizers.gptq_gptqmodel", "modern"),
        "llm-compressor": Backend("lowbit.quantizers.gptq_llm_compressor", "modern"),
    }
    BITS = (2, 3, 4, 8)
    GROUP_WORDS = ("row",)
    model_config = section_settings({"quantizer": "gptq", "bits": 3, "group_size": 64})

    quantizer: Literal["gptq"]
    backend: Literal["auto-gptq", "gptqmodel", "llm-compressor"] = "auto-gptq"
    """The library that runs it."""
    symmetric: bool = False
    """Whether the grid is symmetric about zero."""
    activation_order: bool = False
    """Whether columns are quantized in the order of their inputs' size, the largest first."""
    damping: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of the Hessian's mean diagonal that is added to its diagonal."""


class Awq(Method):
    """AWQ (arXiv 2306.00978): channels with large inputs scaled up before rounding."""

    BACKENDS = {
        "autoawq": Backend("lowbit.quantizers.awq_autoawq", "archived"),
        "llm-compressor": Backend("lowbit.quantizers.awq_llm_compressor", "modern"),
    }
    GROUP_WORDS = ("row",)
    model_config = section_settings({"quantizer": "awq", "bits": 3, "group_size": 64})

    quantizer: Literal["awq"]
    backend: Literal["autoawq", "llm-compressor"] = "autoawq"
    """The library that runs it."""
    clipping: bool = True
    """Whether the range of each group is searched too; llm-compressor cannot, and has false."""

    @model_validator(mode="before")
    @classmethod
    def _clips_by_default_where_it_can(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("backend") == "llm-compressor":
            return {"clipping": False, **given}
        return given

    @model_validator(mode="after")
    def _backend_can(self) -> "Awq":
        if self.backend == "llm-compressor" and self.clipping:
            raise ValueError("clipping: true needs backend: autoawq; write clipping: false")
        return self


class Eqat(Method):
    """EfficientQAT (arXiv 2407.11062): blocks trained one by one, then all step sizes together."""

    BACKENDS = {"own": Backend("lowbit.quantizers.eqat", "core")}
    GROUP_WORDS = ("row",)
    model_config = section_settings({"quantizer": "eqat", "bits": 3, "group_size": 64})

    quantizer: Literal["eqat"]
    epochs: Annotated[int, Field(ge=0)] = 2
    """Passes over the calibration set for each block."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Sequences per step."""
    quantization_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of step sizes and zero points, block by block."""
    weight_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of weights and norms, block by block. The authors take 2e-5 for 2 bits."""
    end_to_end_epochs: Annotated[int, Field(ge=0)] = 1
    """Passes over the calibration set for the whole model."""
    end_to_end_batch_size: Annotated[int, Field(ge=1)] = 32
    """Sequences per step of the whole model."""
    end_to_end_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of step sizes, with the whole model's loss. The authors take 2e-5 for 2 bits."""


class Published(Method):
    """A quantized checkpoint that someone published, read as it is."""

    BACKENDS = {"published": Backend("lowbit.quantization.published.reader", "core")}
    BITS = (1, 2, 3, 4, 5, 6, 7, 8)
    model_config = section_settings({"quantized": "path:models/mine-gptq-4bit"})

    quantizer: Literal["published"] = "published"
    """Need not be written: `quantized` says so."""
    quantized: str
    """`path:<directory>` or `hub:<repo>@<revision>` of a checkpoint by GPTQ, AWQ,
    compressed-tensors, bitsandbytes or HQQ."""
    bits: int = 4
    """Read from the checkpoint's config.json; leave it out."""
    group_size: int | Literal["row", "tensor"] = 128
    """Read from the checkpoint's config.json; leave it out."""
    family: str = ""
    """Read from the checkpoint's config.json; leave it out."""

    @model_validator(mode="before")
    @classmethod
    def _checkpoint_says(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("quantized"), str):
            return given
        try:
            found = describe_checkpoint(outline_checkpoint(given["quantized"]))
        except InputError as error:
            raise ValueError(f"cannot be used: {error}") from None
        found = {**found, "family": found["quantizer"], "quantizer": "published"}
        for key in ("bits", "group_size", "family"):
            if given.get(key, found[key]) != found[key]:
                raise ValueError(f"has {key} {given[key]!r}, but the checkpoint {found[key]!r}")
        return {**given, **found}

    def checkpoint(self) -> Path | Listing:
        """Its local directory, or what the hub lists of it."""
        return outline_checkpoint(self.quantized)

    def described(self) -> dict[str, Any]:
        """What analyses read: the checkpoint's own quantizer."""
        return self.model_dump() | {"quantizer": self.family, "backend": "published"}

    def grouped_width(self, outputs: int, inputs: int) -> int:
        """Groups are as the checkpoint has them; there is nothing to divide."""
        return self.group_size if isinstance(self.group_size, int) else inputs


METHODS = (Rtn, Nf, Power, Sigmoid, Log, Piecewise, LloydMax, Fp, Hqq, Gptq, Awq, Eqat)
"""The quantizers of the workflow itself."""
AnyMethod = Annotated[Union[(*METHODS, Published)], Field(discriminator="quantizer")]
