"""Which torch operators an untrusted graph may use: those that only compute and access no files.

An operator can name a file only through a string argument. So public operators without string arguments are allowed,
and those with one only if they are listed here. Operators with a leading underscore are internal and check their
arguments less, so they must be listed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

_MODES = """
__interpolate __upsample _convolution_mode conv1d conv2d conv3d div div_ divide divide_ einsum gelu gelu_ pad fft_fft
fft_fft2 fft_fftn fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft
fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn index_reduce index_reduce_ linalg_cond linalg_eigh linalg_eigvalsh
linalg_lstsq linalg_matrix_norm linalg_norm linalg_qr linalg_svd linalg_svdvals meshgrid nanquantile pad_sequence
quantile scatter scatter_ scatter_reduce scatter_reduce_ searchsorted segment_reduce stft get_autocast_dtype device
record_stream
"""
"""Operators whose string is a mode, an equation or a device."""

_TEXT = """
Delete Float Int __contains__ __getitem__ _set_item add any capitalize center clear copy count dict endswith eq
expandtabs find format ge get gt index isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable
isspace istitle isupper items join keys le len list ljust lower lstrip lt ne ord partition percentFormat pop popitem
remove replace rfind rindex rjust rpartition rsplit rstrip setdefault slice sort sorted split splitlines startswith
strip swapcase title update upper values warn zfill
"""
"""Operators on strings, lists and dictionaries, and TorchScript's warnings."""

_INTERNAL = """
__and__ __iand__ __or__ __ior__ __xor__ __ixor__ __lshift__ __ilshift__ __rshift__ __irshift__ __not__ __is__
__isnot__ __range_length __derive_index __round_to_zero_floordiv __upsample_bilinear __upsample_nearest
_adaptive_avg_pool2d _adaptive_avg_pool3d _aminmax _assert_async _assert_scalar _assert_tensor_metadata
_batch_norm_impl_index _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short
_cdist_forward _conj _conj_physical _convolution _embedding_bag _embedding_bag_forward_only _euclidean_dist _fft_c2c
_fft_c2r _fft_r2c _functional_assert_async _functional_assert_scalar _fused_dropout _get_tracing_state _infer_size
_linalg_det _linalg_eigh _linalg_slogdet _linalg_svd _list_to_tensor _local_scalar_dense _log_softmax _masked_softmax
_native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
_native_multi_head_attention _neg_view _pack_padded_sequence _pad_circular _pad_enum _pad_packed_sequence
_pdist_forward _prelu_kernel _reshape_alias _reshape_from_tensor _safe_softmax _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _stack _tensor_to_list _thnn_fused_gru_cell
_thnn_fused_lstm_cell _to_copy _transformer_encoder_layer_fwd _trilinear _unique _unique2 _unsafe_index _unsafe_view
_unwrap_optional _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm _weight_norm_interface
"""

_SCRIPT_BLOCKS = """
AutogradZero CallFunction CallMethod ConstantChunk Constant CreateObject DictConstruct DictIndex EnumName EnumValue
Enter Exit GetAttr If IfThenElse ListConstruct ListIndex ListUnpack Loop ModuleContainerIndex NumToTensor
RaiseException Return SetAttr StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data
device dtype fork id index is_cpu is_cuda is_mps is_meta is_mkldnn is_nested is_quantized is_sparse is_sparse_csr
isinstance itemsize layout max min name nbytes rangelist requires_grad shape tolist type unchecked_cast
unchecked_unwrap_optional unchecked_implicit_cast
"""
"""TorchScript's own building blocks, in the namespace prim."""

_COMPUTING = frozenset((_MODES + _TEXT + _INTERNAL).split())
_STRUCTURE = frozenset(_SCRIPT_BLOCKS.split())


def known(name: str) -> bool:
    """Return whether the installed torch has an operator of that name."""
    return bool(_schemas(name))


def overloads(name: str) -> set[str]:
    """Return the names of an operator's overloads, as in `torch.ops`."""
    return {schema.overload_name or "default" for schema in _schemas(name)}


@cache
def computes(name: str) -> bool:
    """Return whether every overload of an operator (`aten::conv2d`) only computes."""
    namespace, _, base = name.partition("::")
    if namespace == "prim":
        return base in _STRUCTURE
    if namespace not in ("aten", "prims"):
        return False
    if base in _COMPUTING:
        return True
    return not base.startswith("_") and known(name) and not any(map(_takes_text, _schemas(name)))


def _schemas(name: str) -> Sequence[Any]:
    import torch

    return torch._C._jit_get_schemas_for_operator(name)


def _takes_text(schema: Any) -> bool:
    return any("str" in str(argument.type) for argument in schema.arguments)
