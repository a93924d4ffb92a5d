"""The building blocks of CUDA kernels are legal on every architecture and become the instructions they are meant to."""

import re

import pytest

import cuda_nvrtc
from cuda_nvrtc import ARCHS, CompileError, ptx
from test_cuda_host import unit

TENSOR = """
    using T = {};
    STRIATE_SHARED_BYTES(raw);
    u32 a[4], b[2], c[1];
    float d[4] = {{}};
    ldmatrix<4>(a, raw + 16 * t);
    ldmatrix<2, true>(b, raw + 512 + 16 * t);
    ldmatrix<1>(c, raw + 16 * t);
    a[0] ^= c[0];
    mma_m16n8k16<T>(d, a, b);
    mma_m16n8k8<T>(d, {{a[1], a[2]}}, b[1]);
    for (int i = 0; i < 4; ++i) static_cast<T*>(args.out)[4 * t + i] = Scalar<T>::narrow(d[i]);
"""
TF32 = """
    u32 a[4], b[2] = {1, 2};
    float d[4] = {};
    for (int i = 0; i < 4; ++i) a[i] = to_tf32(static_cast<const float*>(args.a)[t + i]);
    mma_m16n8k8_tf32(d, a, b);
    for (int i = 0; i < 4; ++i) static_cast<float*>(args.out)[4 * t + i] = d[i];
"""
COPIES = """
    STRIATE_SHARED(float, s, 128 * 3);
    cp_async<16>(s + 4 * t, static_cast<const float*>(args.a) + 4 * t, int(args.n));
    cp_async_commit();
    cp_async<8>(s + 128 + 2 * t, static_cast<const float*>(args.a) + 2 * t, int(args.n));
    cp_async<4>(s + 256 + t, static_cast<const float*>(args.a) + t);
    cp_async_commit();
    cp_async_wait<1>();
    sync_block();
    float x = s[127 - t];
    cp_async_wait<0>();
    sync_block();
    for (int mask = 16; mask; mask /= 2) x += shuffle_xor(x, mask);
    const double y = shuffle_down(double(x), 1) + shuffle_idx(double(x), 3) + ballot(x > 0);
    sync_warp();
    static_cast<double*>(args.out)[t] = y + s[192 + t] + s[256 + t];
"""
PACKS = """
    Pack<{0}, {1}> pack = load<{1}>(static_cast<const {0}*>(args.a) + {1} * t);
    for ({0}& x : pack.at) x = Scalar<{0}>::narrow(2 * Scalar<{0}>::widen(x));
    store(static_cast<{0}*>(args.out) + {1} * t, pack);
"""


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("body", "since"), [
    (TENSOR.format("Half"), 75), (TENSOR.format("Bfloat"), 75), (TF32, 80), (COPIES, 75), (PACKS.format("Half", 8), 75),
    (PACKS.format("Bfloat", 4), 75), (PACKS.format("float", 4), 75), (PACKS.format("double", 2), 75),
])  # fmt: skip
def test_building_blocks_compile_without_spills(arch, body, since):
    if arch < since:
        with pytest.raises(CompileError):
            cuda_nvrtc.compile(unit(body), arch)
        return
    cubin, log = cuda_nvrtc.compile(unit(body), arch)
    assert cubin[:4] == b"\x7fELF"
    assert log.spilled == 0 and log.stack == 0
    assert 0 < log.registers <= 64


@pytest.mark.parametrize(("c_type", "count"), [("Half", 8), ("Half", 4), ("Half", 2), ("Bfloat", 8), ("float", 4),
                                           ("double", 2)])  # fmt: skip
def test_packs_are_one_instruction(c_type, count):
    text = ptx(unit(PACKS.format(c_type, count)), 90)
    assert len(re.findall(r"\bld\.global", text)) == 1, text
    assert len(re.findall(r"\bst\.global", text)) == 1, text
