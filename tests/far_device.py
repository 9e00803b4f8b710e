"""A second device without a second device: tensors that say they are elsewhere, and hold numbers.

A `Far` tensor reports the device "meta" and computes on an ordinary one that it wraps. As on a GPU,
to mix it with an ordinary tensor raises, what is made "like" it is far as well, and it comes back
by `.cpu()` alone. Within `far_device()`, `device="meta"` makes and moves tensors there, so that
whole fits run with one device for the data and another for the rest.
"""

import warnings
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")
MAY_MIX = {"copy_", "_to_copy", "set_"}
MAY_HAVE_NEAR_PLACES = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Far(torch.Tensor):
    supports_float64 = True

    @staticmethod
    def __new__(cls, near):
        if near.dtype == torch.float64 and not Far.supports_float64:
            raise TypeError("The far device has no float64.")
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def new_tensor(self, data, **kwargs):
        # torch makes no numbers from data for its own "meta".
        return Far(self.near.new_tensor(data, **kwargs))

    def tolist(self):
        return self.near.tolist()

    def __repr__(self, *, tensor_contents=None):
        return f"Far({self.near})"


class _FarDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class _FromData(TorchFunctionMode):
    """Makes far tensors from data; torch's own "meta" would have no numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None:
            made = func(*args, **{**kwargs, "device": None})
            return made.to(device)
        return func(*args, **kwargs)


class _Generator:
    """Makes the generator of the device that stands behind the far one."""

    def __new__(cls, device="cpu"):
        return _make_generator("cpu" if torch.device(device) == DEVICE else device)


_make_generator = torch.Generator


@contextmanager
def far_device(supports_float64=True):
    """Let the device "meta" hold numbers; without float64, as Apple's GPUs."""
    torch.Generator = _Generator
    Far.supports_float64 = supports_float64
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    # A wrapper is no storage that a parameter could be pointed at.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _FarDevice(), _FromData(), warnings.catch_warnings():
            # torch does not know that this "meta" can be copied to.
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
            yield DEVICE
    finally:
        torch.Generator = _make_generator
        Far.supports_float64 = True
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def to_near(values):
    """Give what far tensors hold."""
    return tree_map(lambda v: v.near if isinstance(v, Far) else v, values)


def dispatch(func, args, kwargs):
    """Compute near, and put the result where a GPU would."""
    leaves, spec = tree_flatten((args, kwargs))
    is_far = any(isinstance(leaf, Far) for leaf in leaves)
    if "device" in kwargs and kwargs["device"] is not None:
        goes_far = torch.device(kwargs["device"]) == DEVICE
    else:
        goes_far = is_far
    if is_far:
        _check_mix(func, args, leaves)
    near_args, near_kwargs = tree_unflatten(to_near(leaves), spec)
    if near_kwargs.get("device") is not None and goes_far:
        near_kwargs["device"] = torch.device("cpu")
    result = func(*near_args, **near_kwargs)
    if not goes_far:
        return result
    moved = {id(leaf.near): leaf for leaf in leaves if isinstance(leaf, Far)}

    def far(value):
        if not isinstance(value, torch.Tensor):
            return value
        return moved[id(value)] if id(value) in moved else Far(value)

    result = tree_map(far, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if is_far else result


def _check_mix(func, args, leaves):
    name = func._schema.name.removeprefix("aten::")
    if name in MAY_MIX:
        return
    if name in MAY_HAVE_NEAR_PLACES:
        leaves = [args[0], *args[2:]]
    near = [v for v in leaves if isinstance(v, torch.Tensor) and not isinstance(v, Far)]
    if not near:
        return
    changes_near = func._schema.is_mutable and not isinstance(args[0], Far | list | tuple)
    # A number on the processor goes along with a GPU's tensors, element by element.
    are_numbers = all(v.dim() == 0 for v in near) and torch.Tag.pointwise in func.tags
    if changes_near or not are_numbers:
        shapes = [tuple(v.shape) for v in near]
        raise RuntimeError(
            f"{func} mixes devices: tensors of shapes {shapes} are not on the far one."
        )
