// Storage types and their accumulators, and loads and stores of several neighbours at once. The CUDA headers for half
// precision are not in every installation that has NVRTC, so conversions are PTX on the device; on the host, where
// tests run the same kernels, they are bit arithmetic with the same results.

#pragma once

#include "axis.cuh"

namespace striate {

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct Half {
    u16 bits;
};
struct Bfloat {
    u16 bits;
};

#ifdef __CUDACC__
STRIATE_FN u32 bits_of(float x) { return __float_as_uint(x); }
STRIATE_FN float float_of(u32 x) { return __uint_as_float(x); }
#else
STRIATE_FN u32 bits_of(float x) {
    u32 y;
    __builtin_memcpy(&y, &x, 4);
    return y;
}
STRIATE_FN float float_of(u32 x) {
    float y;
    __builtin_memcpy(&y, &x, 4);
    return y;
}
#endif

// Every conversion rounds to nearest, ties to even, and makes every NaN the one that the device makes.
STRIATE_FN float widen(Half x) {
#ifdef __CUDACC__
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#else
    const u32 sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ffu;
    if (exponent == 0) return float_of(sign | bits_of(float(fraction) * 0x1p-24f));
    return float_of(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13);
#endif
}

STRIATE_FN Half half_of(float x) {
#ifdef __CUDACC__
    Half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#else
    const u32 sign = bits_of(x) >> 16 & 0x8000u, magnitude = bits_of(x) & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {0x7fff};
    if (magnitude >= 0x47800000u) return {u16(sign | 0x7c00u)};
    // Below the normal range the last place of 0.5f is that of the subnormal numbers: the addition rounds.
    if (magnitude < 0x38800000u) return {u16(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)))};
    return {u16(sign | (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1)) >> 13)};
#endif
}

STRIATE_FN float widen(Bfloat x) { return float_of(u32(x.bits) << 16); }

STRIATE_FN Bfloat bfloat_of(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    Bfloat y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#else
    const u32 bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {u16((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
#endif
}

STRIATE_FN float exponential(float x) { return expf(x); }
STRIATE_FN double exponential(double x) { return exp(x); }

// A storage type: what sums are carried in, and the way there and back.
template <class T>
struct Scalar;

template <>
struct Scalar<float> {
    using Acc = float;
    static STRIATE_FN float widen(float x) { return x; }
    static STRIATE_FN float narrow(float x) { return x; }
};
template <>
struct Scalar<double> {
    using Acc = double;
    static STRIATE_FN double widen(double x) { return x; }
    static STRIATE_FN double narrow(double x) { return x; }
};
template <>
struct Scalar<Half> {
    using Acc = float;
    static STRIATE_FN float widen(Half x) { return striate::widen(x); }
    static STRIATE_FN Half narrow(float x) { return half_of(x); }
};
template <>
struct Scalar<Bfloat> {
    using Acc = float;
    static STRIATE_FN float widen(Bfloat x) { return striate::widen(x); }
    static STRIATE_FN Bfloat narrow(float x) { return bfloat_of(x); }
};

// N neighbours that move in one instruction; N * sizeof(T) is 2, 4, 8 or 16, and so is the alignment of the address.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

#ifndef __CUDACC__
namespace host {
void check_aligned(const void* address, unsigned long bytes, const char* what);
}
#endif

template <int N, class T>
STRIATE_FN Pack<T, N> load(const T* from) {
    static_assert(sizeof(Pack<T, N>) <= 16, "one instruction moves at most 16 bytes");
#ifndef __CUDACC__
    host::check_aligned(from, sizeof(Pack<T, N>), "load of a pack");
#endif
    return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <class T, int N>
STRIATE_FN void store(T* to, const Pack<T, N>& pack) {
    static_assert(sizeof(Pack<T, N>) <= 16, "one instruction moves at most 16 bytes");
#ifndef __CUDACC__
    host::check_aligned(to, sizeof(Pack<T, N>), "store of a pack");
#endif
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// The same where neighbours may be unaligned: `packed` says that they are not.
template <int N, class T>
STRIATE_FN Pack<T, N> load_some(const T* from, bool packed) {
    if (N == 1 || packed) return load<N>(from);
    Pack<T, N> made;
#pragma unroll
    for (int v = 0; v < N; ++v) made.at[v] = from[v];
    return made;
}

template <int N, class T>
STRIATE_FN void store_some(T* to, const Pack<T, N>& made, bool packed) {
    if (N == 1 || packed) return store(to, made);
#pragma unroll
    for (int v = 0; v < N; ++v) to[v] = made.at[v];
}

STRIATE_FN bool is_aligned(const void* address, int bytes) {
    return reinterpret_cast<u64>(address) % unsigned(bytes) == 0;
}

}  // namespace striate
