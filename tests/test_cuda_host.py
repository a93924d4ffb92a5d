"""The host that runs CUDA kernels: does it do what a device does, and does it find what it is there to find?"""

import re
import struct

import ml_dtypes
import numpy as np
import pytest
import torch

from cuda_host import LaunchError, compile_host, launch

ARGS = "struct Args { const void* a; const void* b; void* out; i64 n; };"


def unit(body, threads=32, declarations=""):
    """A translation unit whose kernel is `body`, in the namespace of the library."""
    return f"""
#include "tile.cuh"
namespace striate {{
{ARGS}
{declarations}
template <int unused> STRIATE_DEVICE void run(const Args& args) {{
    const int t = int(threadIdx.x);
    (void)t, (void)args;
    {body}
}}
}}
extern "C" __global__ void __launch_bounds__({threads}) striate_kernel(const __grid_constant__ striate::Args args) {{
    striate::run<0>(args);
}}
"""


def pack(a=None, b=None, out=None, n=0):
    return struct.pack("<3Qq", *(0 if t is None else t.data_ptr() for t in (a, b, out)), n)


def run(body, out, a=None, b=None, n=0, threads=32, shared=0, seeds=(0, 1, 2), **options):
    """Runs a kernel of one block in several orders; all must agree."""
    kernel = compile_host(unit(body, threads, **options))
    results = []
    for seed in seeds:
        out.zero_()
        launch(kernel, (1, 1, 1), threads, shared, pack(a, b, out, n), seed)
        results.append(out.clone())
    assert all(torch.equal(results[0], result) for result in results)
    return results[0]


def test_indices_cover_the_grid_and_the_block():
    out = torch.zeros(2, 3, 4, 64, dtype=torch.int32)
    body = """
        const i64 block = (i64(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        static_cast<int*>(args.out)[block * blockDim.x + t] += int(block * 1000) + t;
    """
    launch(compile_host(unit(body, 64)), (4, 3, 2), 64, 0, pack(out=out))
    want = torch.arange(24).reshape(2, 3, 4, 1) * 1000 + torch.arange(64)
    assert torch.equal(out, want.int())


@pytest.mark.parametrize("memory", ["STRIATE_SHARED(int, s, 256);",
                                    "STRIATE_SHARED_BYTES(raw); int* s = reinterpret_cast<int*>(raw);"])  # fmt: skip
def test_barriers_order_shared_memory(memory):
    body = f"""
        {memory}
        s[t] = t * t;
        sync_block();
        for (int round = 0; round < 3; ++round) {{
            const int x = s[255 - t];
            sync_block();
            s[t] = x + 1;
            sync_block();
        }}
        static_cast<int*>(args.out)[t] = s[t];
    """
    got = run(body, torch.zeros(256, dtype=torch.int32), threads=256, shared=1024)
    assert torch.equal(got, (255 - torch.arange(256)).square().int() + 3)


def test_a_missing_barrier_shows_in_some_order():
    """In the order of their numbers every thread finds what its predecessor wrote; in others it finds NaN."""
    body = """
        STRIATE_SHARED(float, s, 64);
        s[t] = float(t);
        static_cast<float*>(args.out)[t] = t ? s[t - 1] : 0.0f;
    """
    kernel, out = compile_host(unit(body, 64)), torch.zeros(64)
    launch(kernel, (1, 1, 1), 64, 0, pack(out=out))
    assert torch.equal(out[1:], torch.arange(63.0))
    for seed in (1, 2, 3):
        launch(kernel, (1, 1, 1), 64, 0, pack(out=out), seed)
        assert out.isnan().any()


@pytest.mark.parametrize("memory", ["STRIATE_SHARED(u16, s, 64);",
                                    "STRIATE_SHARED_BYTES(raw); u16* s = reinterpret_cast<u16*>(raw);"])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shared_memory_is_nan_in_every_block(memory, dtype):
    body = f"{memory} static_cast<u16*>(args.out)[64 * blockIdx.x + t] = s[t]; s[t] = 0;"
    out = torch.zeros(3, 64, dtype=dtype)
    launch(compile_host(unit(body, 64)), (3, 1, 1), 64, 128, pack(out=out))
    assert out.isnan().all()


@pytest.mark.parametrize(
    ("c_type", "dtype"), [("float", torch.float32), ("double", torch.float64), ("i64", torch.int64)]
)
def test_shuffles(c_type, dtype):
    body = f"""
        using T = {c_type};
        const T x = static_cast<const T*>(args.a)[t];
        T* out = static_cast<T*>(args.out);
        out[t] = shuffle_xor(x, 5);
        out[64 + t] = shuffle_down(x, 3);
        out[128 + t] = shuffle_idx(x, 31 - lane_index());
        T sum = x;
        for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        out[192 + t] = sum;
        out[256 + t] = T(ballot(lane_index() % 3 == 0) >> lane_index() & 1);
    """
    x = torch.arange(64).add(7).to(dtype)
    got = run(body, torch.zeros(5, 64, dtype=dtype), x, threads=64)
    lane, warp = torch.arange(64) % 32, torch.arange(64) // 32 * 32
    assert torch.equal(got[0], x[warp + (lane ^ 5)])
    assert torch.equal(got[1], x[warp + torch.where(lane + 3 < 32, lane + 3, lane)])
    assert torch.equal(got[2], x[warp + 31 - lane])
    assert torch.equal(got[3], x.reshape(2, 32).sum(1).repeat_interleave(32))
    assert torch.equal(got[4], (lane % 3 == 0).to(dtype))


@pytest.mark.parametrize(("body", "words"), [
    ("if (t < 40) sync_block();", "deadlock in block 0,0,0: of 64 threads 40 wait at a block barrier"),
    ("if (t % 2) sync_warp();", "32 in a warp (first 1), 32 have ended"),
    ("if (t == 5) { sync_block(); sync_warp(); } else { sync_warp(); sync_block(); }", "deadlock"),
    ("if (t % 2) sync_warp(); else shuffle_xor(1.0f, 1);", "divergent warp"),
    ("load<4>(static_cast<const float*>(args.a) + 1);", "misaligned: load of a pack"),
    ("store(static_cast<Half*>(args.out) + 1, Pack<Half, 8>{});", "misaligned: store of a pack"),
    ("u32 r[1]; ldmatrix<1>(r, args.a);", "row of ldmatrix"),
    ("STRIATE_SHARED(u16, s, 72); u32 r[1]; ldmatrix<1>(r, s + 1);", "misaligned: row of ldmatrix"),
    ("cp_async<16>(args.out, args.a);", "target of cp.async"),
    ("STRIATE_SHARED(float, s, 32); cp_async<8>(s, static_cast<const float*>(args.a) + 1);",
     "misaligned: source of cp.async"),
])  # fmt: skip
def test_misuse_is_reported(body, words):
    a, out = torch.zeros(256), torch.zeros(256)
    kernel = compile_host(unit(body, 64))
    for seed in (0, 1, 2):
        with pytest.raises(LaunchError, match=re.escape(words)):
            launch(kernel, (1, 1, 1), 64, 0, pack(a, None, out), seed)
    # The next launch is not disturbed by what the last one left behind.
    run("static_cast<float*>(args.out)[t] = 1.0f; sync_block();", out[:64], threads=64)


def test_bad_launches_are_refused():
    kernel, out = compile_host(unit("", 64)), torch.zeros(1)
    for grid, block, shared, args, words in [
        ((1, 1, 1), 64, 0, pack(out=out)[:-8], "arguments: expected 32 bytes, got 24"),
        ((1, 1, 1), 48, 0, pack(out=out), "whole warps"),
        ((1, 1, 1), 96, 0, pack(out=out), "at most 64 threads are declared"),
        ((1, 1, 1), 64, 300_000, pack(out=out), "shared memory: expected at most"),
        ((1, 0, 1), 64, 0, pack(out=out), "grid"),
        ((1, 70_000, 1), 64, 0, pack(out=out), "grid"),
    ]:
        with pytest.raises(LaunchError, match=words):
            launch(kernel, grid, block, shared, args)


def halves(dtype):
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)


@pytest.mark.parametrize(("c_type", "dtype"), [("Half", torch.float16), ("Bfloat", torch.bfloat16)])
def test_every_half_widens_exactly(c_type, dtype):
    body = f"""
        for (int i = t; i < 65536; i += 32)
            static_cast<float*>(args.out)[i] = Scalar<{c_type}>::widen(static_cast<const {c_type}*>(args.a)[i]);
    """
    x, out = halves(dtype), torch.zeros(1 << 16)
    launch(compile_host(unit(body)), (1, 1, 1), 32, 0, pack(x, None, out))
    assert torch.equal(out.isnan(), x.isnan())
    bits = [t[~x.isnan()].view(torch.int32) for t in (out, x.float())]
    assert torch.equal(*bits)


@pytest.mark.parametrize(("c_type", "dtype", "numpy_type"), [("Half", torch.float16, np.float16),
                                                       ("Bfloat", torch.bfloat16, ml_dtypes.bfloat16)])  # fmt: skip
def test_narrowing_rounds_to_nearest_even(c_type, dtype, numpy_type):
    """At every half, halfway to the next, and one float to either side of both; and over the range of float."""
    body = f"""
        for (i64 i = t; i < args.n; i += 32)
            static_cast<{c_type}*>(args.out)[i] = Scalar<{c_type}>::narrow(static_cast<const float*>(args.a)[i]);
    """
    every = halves(dtype).float().numpy()
    every = np.sort(every[np.isfinite(every)])
    middle = every[:-1] + (every[1:] - every[:-1]) / 2
    near = [np.nextafter(v, np.float32(to)) for v in (every, middle) for to in (-np.inf, np.inf)]
    top = [65519.996, 65520, 65536, 3.4e38, 3.39e38, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -0.0]
    wide = np.random.default_rng(0).integers(0, 1 << 32, 50_000, dtype=np.uint32).view(np.float32)
    parts = [every, middle, *near, np.array(top, np.float32), wide]
    assert all(part.dtype == np.float32 for part in parts)
    x = torch.from_numpy(np.concatenate(parts))
    out = torch.zeros(len(x), dtype=dtype)
    launch(compile_host(unit(body)), (1, 1, 1), 32, 0, pack(x, None, out, len(x)))
    with np.errstate(over="ignore", invalid="ignore"):
        want = torch.from_numpy(x.numpy().astype(numpy_type).view(np.int16))
    assert torch.equal(out.isnan(), x.isnan())
    assert torch.equal(out.view(torch.int16)[~x.isnan()], want[~x.isnan()])
    assert torch.equal(out[~x.isnan()], x.to(dtype)[~x.isnan()])


MMA = """
    const int line = t / 4, pair = t % 4 * 2;
    const T* a = static_cast<const T*>(args.a);
    const T* b = static_cast<const T*>(args.b);
    float* out = static_cast<float*>(args.out);
    float d[4];
    u32 fa[4] = {}, fb[2] = {};
    for (int i = 0; i < 4; ++i) d[i] = float(args.n);
"""
HALVES = """
    for (int r = 0; r < 4; ++r)
        for (int e = 0; e < 2; ++e)
            fa[r] |= u32(a[(line + r % 2 * 8) * 16 + pair + e + r / 2 * 8].bits) << 16 * e;
    for (int r = 0; r < 2; ++r)
        for (int e = 0; e < 2; ++e) fb[r] |= u32(b[(pair + e + r * 8) * 8 + line].bits) << 16 * e;
    mma_m16n8k16<T>(d, fa, fb);
"""
SHALLOW = """
    for (int r = 0; r < 2; ++r)
        for (int e = 0; e < 2; ++e) fa[r] |= u32(a[(line + r * 8) * 8 + pair + e].bits) << 16 * e;
    for (int e = 0; e < 2; ++e) fb[0] |= u32(b[(pair + e) * 8 + line].bits) << 16 * e;
    mma_m16n8k8<T>(d, {fa[0], fa[1]}, fb[0]);
"""
SHUFFLED = SHALLOW.replace("mma_m16n8k8<T>", "product_by_shuffles<T>")
TF32 = """
    for (int r = 0; r < 4; ++r) fa[r] = to_tf32(a[(line + r % 2 * 8) * 8 + t % 4 + r / 2 * 4]);
    for (int r = 0; r < 2; ++r) fb[r] = to_tf32(b[(t % 4 + r * 4) * 8 + line]);
    mma_m16n8k8_tf32(d, fa, fb);
"""
STORE = "for (int i = 0; i < 4; ++i) out[(line + i / 2 * 8) * 8 + pair + i % 2] = d[i];"


@pytest.mark.parametrize(
    ("c_type", "dtype", "depth", "product"),
    [
        ("Half", torch.float16, 16, HALVES),
        ("Bfloat", torch.bfloat16, 16, HALVES),
        ("Half", torch.float16, 8, SHALLOW),
        ("Bfloat", torch.bfloat16, 8, SHALLOW),
        ("Bfloat", torch.bfloat16, 8, SHUFFLED),
        ("float", torch.float32, 8, TF32),
    ],
)
def test_products_of_a_warp(c_type, dtype, depth, product):
    """Fragments are laid out here from the manual, element by element; integers must come out equal."""
    body = f"using T = {c_type};" + MMA + product + STORE
    draw = torch.Generator().manual_seed(depth)
    a, b = (torch.randint(-99, 100, shape, generator=draw).to(dtype) for shape in ((16, depth), (depth, 8)))
    got = run(body, torch.zeros(16, 8), a, b, n=3)
    assert torch.equal(got, a.float() @ b.float() + 3)


def test_tf32_rounds_to_ten_bits():
    body = """
        for (i64 i = t; i < args.n; i += 32)
            static_cast<u32*>(args.out)[i] = to_tf32(static_cast<const float*>(args.a)[i]);
    """
    x = torch.tensor(
        [1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 - 2**-23, 3.0, torch.inf, 0.0, -0.0]
    )
    got = run(body, torch.zeros_like(x), x, n=len(x))
    assert torch.equal(
        got, torch.tensor([1 + 2**-10, -1 - 2**-10, 1 + 2**-9, 1.0, 3.0, torch.inf, 0.0, -0.0])
    )


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", [False, True])
def test_ldmatrix(count, trans):
    body = f"""
        STRIATE_SHARED(u16, s, 64 * 5);
        for (int i = t; i < 64 * 5; i += 32) s[i] = u16(i);
        sync_block();
        u32 r[{count}];
        // Rows in reverse, from the second row on.
        const int row = {8 * count} - t;
        ldmatrix<{count}, {str(trans).lower()}>(r, s + 8 * (t < {8 * count} ? row : 0));
        for (int i = 0; i < {count}; ++i) static_cast<u32*>(args.out)[i * 32 + t] = r[i];
    """
    got = run(body, torch.zeros(count, 32, dtype=torch.int32)).view(torch.int16).reshape(count, 8, 8)
    rows = torch.arange(8 * count, 0, -1).reshape(count, 8, 1) * 8 + torch.arange(8)
    assert torch.equal(got, (rows.mT if trans else rows).to(torch.int16))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_background_copies_fill_with_zeros_and_must_be_waited_for(size):
    """Lane t copies t % (size + 1) bytes of its piece; the second group is still under way when the first has come."""
    body = f"""
        STRIATE_SHARED(unsigned char, s, 2 * 32 * {size});
        const unsigned char* from = static_cast<const unsigned char*>(args.a);
        unsigned char* out = static_cast<unsigned char*>(args.out);
        for (int group = 0; group < 2; ++group) {{
            const int at = (group * 32 + t) * {size};
            cp_async<{size}>(s + at, from + at, t % ({size} + 1));
            cp_async_commit();
        }}
        for (int group = 0; group < 2; ++group) {{
            if (group == 0) cp_async_wait<1>();
            else cp_async_wait<0>();
            sync_block();
            const int size = 2 * 32 * {size};
            for (int i = t; i < size; i += 32) out[group * size + i] = s[i];
            sync_block();
        }}
    """
    x = torch.arange(1, 2 * 32 * size + 1).to(torch.uint8)
    x[x == 255] = 1
    got = run(body, torch.zeros(2, 2, 32, size, dtype=torch.uint8), x)
    want = torch.where(torch.arange(size) < torch.arange(32)[:, None] % (size + 1), x.reshape(2, 32, size), 0)
    assert torch.equal(got[1], want)
    assert torch.equal(got[0, 0], want[0])
    assert (got[0, 1] == 255).all()


def test_packs_move_their_neighbours():
    body = """
        Pack<Bfloat, 8> pack = load<8>(static_cast<const Bfloat*>(args.a) + 8 * t);
        for (Bfloat& x : pack.at) x = Scalar<Bfloat>::narrow(2.0f * Scalar<Bfloat>::widen(x));
        store(static_cast<Bfloat*>(args.out) + 8 * t, pack);
    """
    x = torch.arange(256).bfloat16()
    assert torch.equal(run(body, torch.zeros_like(x), x), 2 * x)


@pytest.mark.parametrize(("body", "words"), [
    ("static_cast<float*>(args.out)[t + 1] = 1.0f;", "heap-buffer-overflow"),
    ("static_cast<float*>(args.out)[t] = static_cast<const float*>(args.a)[t - 1];", "heap-buffer-overflow"),
    ("STRIATE_SHARED_BYTES(s); s[t + 1] = 0; sync_block(); static_cast<float*>(args.out)[t] = s[t];",
     "use-after-poison"),
    ("STRIATE_SHARED(int, s, 31); s[t] = 0; static_cast<int*>(args.out)[t] = s[0];", "global-buffer-overflow|bounds"),
    ("int x = 0x7fffffff; sync_block(); static_cast<int*>(args.out)[t] = x + t;", "signed integer overflow"),
])  # fmt: skip
def test_sanitizers_see_into_fibers(body, words):
    a, out = torch.ones(32), torch.zeros(32)
    kernel = compile_host(unit(body), sanitize=True).over(a, out)
    with pytest.raises(LaunchError, match=words):
        launch(kernel, (1, 1, 1), 32, 32, pack(a, None, out))


def test_sanitized_kernels_compute():
    body = """
        STRIATE_SHARED(float, s, 64);
        s[t] = static_cast<const float*>(args.a)[t];
        sync_block();
        static_cast<float*>(args.out)[64 * blockIdx.x + t] = s[63 - t] + shuffle_xor(s[t], 1);
    """
    a, out = torch.arange(64.0), torch.zeros(2, 64)
    launch(compile_host(unit(body, 64), sanitize=True).over(a, out), (2, 1, 1), 64, 0, pack(a, None, out), 5)
    assert torch.equal(out, (a.flip(0) + a[torch.arange(64) ^ 1]).expand(2, 64))
