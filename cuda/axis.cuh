// One spatial dimension of a convolution, on the device. The twin of rust/core/src/axis.rs: all stride, dilation and
// padding arithmetic of the kernels under cuda/ stands in this file, and tests/test_axis_cuh.py holds the two together.
//
// Output o, tap k and input i meet exactly when i = o * stride + k * dilation - pad_lo. The meeting triples can be
// walked from any of their three sides as two arithmetic progressions. An Axis arrives from the host, which has
// validated it; nothing is validated here. The file includes nothing, so that NVRTC needs no include path.

#pragma once

#ifdef __CUDACC__
#define STRIATE_FN __host__ __device__ __forceinline__
#else
#define STRIATE_FN inline
#endif

namespace striate {

using i64 = long long;

enum class Pass : int { Fwd, Dx, Dw };

// Field for field the Rust struct, which is repr(C).
struct Axis {
    i64 input, kernel, output, stride, dilation, pad_lo, pad_hi;
};

// `len` meeting pairs: positions a0 + n * a_step of the first operand and b0 + n * b_step of the second.
// Operands by pass: Fwd (input, weight), Dx (output gradient, weight), Dw (output gradient, input).
struct Walk {
    i64 a0, a_step, b0, b_step, len;
};

// The produced positions out0 + j * out_step (j < outs) that use the same taps: tap number t < taps is kernel position
// tap0 + t * tap_step and meets position j at source position src0 + j * src_step + t * reach_step.
struct Sweep {
    i64 out0, out_step, outs, src0, src_step, reach_step, tap0, tap_step, taps;
};

STRIATE_FN i64 least(i64 a, i64 b) { return a < b ? a : b; }
STRIATE_FN i64 most(i64 a, i64 b) { return a > b ? a : b; }

// Rounding down and up; C++ alone rounds towards zero. The divisor is positive.
STRIATE_FN i64 floor_div(i64 a, i64 b) { return a / b - (a % b < 0); }
STRIATE_FN i64 ceil_div(i64 a, i64 b) { return -floor_div(-a, b); }

STRIATE_FN i64 gcd(i64 a, i64 b) {
    while (b != 0) {
        const i64 rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// Size of the tensor that the pass produces, and of its first operand, along the axis.
STRIATE_FN i64 extent(const Axis& axis, Pass pass) {
    return pass == Pass::Fwd ? axis.output : pass == Pass::Dx ? axis.input : axis.kernel;
}
STRIATE_FN i64 source(const Axis& axis, Pass pass) { return pass == Pass::Fwd ? axis.input : axis.output; }

// The smallest tap k with k * dilation = t (mod stride), or -1; further ones follow at distance stride / gcd.
STRIATE_FN i64 congruent_tap(const Axis& axis, i64 t) {
    const i64 g = gcd(axis.stride, axis.dilation);
    if (t % g != 0) return -1;
    const i64 s = axis.stride / g, d = axis.dilation / g;
    for (i64 k = 0; k < least(s, axis.kernel); ++k)
        if ((t / g - k * d) % s == 0) return k;
    return -1;
}

STRIATE_FN Walk walk_fwd(const Axis& axis, i64 o) {
    const i64 base = o * axis.stride - axis.pad_lo;
    const i64 lo = most(ceil_div(-base, axis.dilation), 0);
    const i64 hi = least(floor_div(axis.input - 1 - base, axis.dilation) + 1, axis.kernel);
    return {base + lo * axis.dilation, axis.dilation, lo, 1, most(hi - lo, 0)};
}

// walk_fwd(axis, o).len, without a division where taps are neighbours.
STRIATE_FN i64 taps_inside(const Axis& axis, i64 o) {
    if (axis.dilation != 1) return walk_fwd(axis, o).len;
    const i64 base = o * axis.stride - axis.pad_lo;
    return most(least(base + axis.kernel, axis.input) - most(base, 0), 0);
}

STRIATE_FN Walk walk_dx(const Axis& axis, i64 i) {
    const i64 first = congruent_tap(axis, i + axis.pad_lo);
    if (first < 0) return {0, 0, 0, 0, 0};
    const i64 g = gcd(axis.stride, axis.dilation);
    const i64 s = axis.stride / g, d = axis.dilation / g, t = (i + axis.pad_lo) / g;
    const i64 lo = most(ceil_div(t - s * (axis.output - 1), d), 0);
    const i64 hi = least(floor_div(t, d), axis.kernel - 1);
    const i64 k = first + ceil_div(most(lo - first, 0), s) * s;
    const i64 len = k > hi ? 0 : (hi - k) / s + 1;
    return {len > 0 ? (t - k * d) / s : 0, -d, k, s, len};
}

STRIATE_FN Walk walk_dw(const Axis& axis, i64 k) {
    const i64 offset = k * axis.dilation - axis.pad_lo;
    const i64 lo = most(ceil_div(-offset, axis.stride), 0);
    const i64 hi = least(floor_div(axis.input - 1 - offset, axis.stride) + 1, axis.output);
    return {lo, 1, lo * axis.stride + offset, axis.stride, most(hi - lo, 0)};
}

// The pairs of operand positions that meet at position p of the produced tensor.
STRIATE_FN Walk walk(const Axis& axis, Pass pass, i64 p) {
    return pass == Pass::Fwd ? walk_fwd(axis, p) : pass == Pass::Dx ? walk_dx(axis, p) : walk_dw(axis, p);
}

// Number of sweeps of Fwd or Dx: one forwards, one for each residue of the stride backwards.
STRIATE_FN i64 sweep_count(const Axis& axis, Pass pass) {
    return pass == Pass::Dx ? least(axis.stride, axis.input) : 1;
}

// Sweep number `index` of Fwd or Dx; its first produced position is `index`.
STRIATE_FN Sweep sweep(const Axis& axis, Pass pass, i64 index) {
    if (pass != Pass::Dx)
        return {0, 1, axis.output, -axis.pad_lo, axis.stride, axis.dilation, 0, 1, axis.kernel};
    const i64 outs = floor_div(axis.input - index - 1, axis.stride) + 1;
    const i64 first = congruent_tap(axis, index + axis.pad_lo);
    if (first < 0) return {index, axis.stride, outs, 0, 1, 1, 0, 1, 0};
    const i64 g = gcd(axis.stride, axis.dilation);
    const i64 s = axis.stride / g, taps = (axis.kernel - 1 - first) / s + 1, last = first + (taps - 1) * s;
    const i64 src0 = (index + axis.pad_lo - last * axis.dilation) / axis.stride;
    return {index, axis.stride, outs, src0, 1, axis.dilation / g, last, -s, taps};
}

// walk_fwd(axis, o).a0 for position j of the sweep of Fwd: the first source that is not before the input.
STRIATE_FN i64 first_source(const Sweep& sweep, i64 j) {
    const i64 base = sweep.src0 + j * sweep.src_step;
    return base < 0 ? base + ceil_div(-base, sweep.reach_step) * sweep.reach_step : base;
}

}  // namespace striate
