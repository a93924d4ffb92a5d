// Kernels from elements at learned positions, and their gradients. Profiles separate, so an element costs one profile per
// axis, kept in shared memory, and its sum over the grid is the product of their sums.
//
// `dcls_build`: a block makes the grid of one filter; a thread takes grid points and sums over the elements, some of
// which are in shared memory at once. `dcls_differentiate`: a warp takes one element, contracts the gradient of the grid
// with the profiles and their slopes, and is the only one to write the gradients of the element.
//
// Constants of a translation unit, struct K:
//   T                 type of every tensor, float or double
//   profile           0: scatter; 1: triangle; 2: gauss
//   row0, row1, row2  the row of positions that moves along each axis, or -1
//   rank, spread      rows of positions, and whether there are as many of sigmas
//   chunk             elements in shared memory at once

#pragma once

#include "tile.cuh"

namespace striate {

struct SpacingArgs {
    const void *upstream, *weight, *positions, *spreads;
    void* out;
    i64 filters, elements, size0, size1, size2;
    // Added to |sigma|, and to the sum over the grid.
    double base, epsilon;
};

// How much of an element falls on a grid point of an axis, and the derivatives by its position and its sigma.
template <class Acc>
struct Fall {
    Acc value, position, spread;
};

template <int profile, class Acc>
STRIATE_DEVICE Fall<Acc> fall(Acc distance, Acc sigma, Acc sign) {
    const Acc away = distance < 0 ? -distance : distance, side = distance > 0 ? 1 : distance < 0 ? -1 : 0;
    if constexpr (profile == 0) {
        // Between two grid points, the upper included, the weight moves from the lower to the upper.
        const bool near = distance > -1 && distance <= 1;
        return {near ? 1 - away : 0, near ? Acc(distance > 0 ? 1 : -1) : 0, 0};
    }
    if constexpr (profile == 1) {
        const bool near = away < sigma;
        return {near ? sigma - away : 0, near ? side : 0, near ? sign : 0};
    }
    const Acc z = distance / sigma, value = exponential(-z * z / 2), slope = value * z / sigma;
    return {value, slope, sign * slope * z};
}

// The axes end to end: a number of all their grid points.
struct GridPoint {
    int axis, at;
};

STRIATE_DEVICE GridPoint grid_point(const SpacingArgs& args, int line) {
    const int first = int(args.size0), second = first + int(args.size1);
    return line < first ? GridPoint{0, line} : line < second ? GridPoint{1, line - first} : GridPoint{2, line - second};
}

// What falls of an element, numbered over all filters, on a grid point of one axis.
template <class K>
STRIATE_DEVICE Fall<typename K::T> fall_of(const SpacingArgs& args, i64 element, int line) {
    using T = typename K::T;
    const GridPoint point = grid_point(args, line);
    const int row = point.axis == 0 ? K::row0 : point.axis == 1 ? K::row1 : K::row2;
    // An axis that is not there is one grid point, on which everything falls and nothing moves.
    if (row < 0) return {1, 0, 0};
    const i64 at = i64(row) * args.filters * args.elements + element;
    const int size = int(point.axis == 0 ? args.size0 : point.axis == 1 ? args.size1 : args.size2);
    const T centre = static_cast<const T*>(args.positions)[at] + T(size / 2);
    const T spread = K::spread ? static_cast<const T*>(args.spreads)[at] : T(0);
    const T sigma = (spread < 0 ? -spread : spread) + T(args.base);
    return fall<K::profile, T>(T(point.at) - centre, sigma, spread > 0 ? T(1) : spread < 0 ? T(-1) : T(0));
}

template <class K>
STRIATE_DEVICE void dcls_build(const SpacingArgs& args) {
    using T = typename K::T;
    STRIATE_SHARED_BYTES(bytes);
    const int lines = int(args.size0 + args.size1 + args.size2), volume = int(args.size0 * args.size1 * args.size2);
    const int s0 = int(args.size0), s1 = int(args.size1), s2 = int(args.size2), thread = threadIdx.x;
    T* const table = reinterpret_cast<T*>(bytes);
    T* const scaled = table + K::chunk * lines;
    T* const out = static_cast<T*>(args.out) + i64(blockIdx.x) * volume;
    const i64 mine = i64(blockIdx.x) * args.elements;
    for (i64 first = 0; first == 0 || first < args.elements; first += K::chunk) {
        const int count = int(least(args.elements - first, K::chunk));
        sync_block();
        for (int e = thread; e < count * lines; e += blockDim.x)
            table[e] = fall_of<K>(args, mine + first + e / lines, e % lines).value;
        sync_block();
        for (int m = thread; m < count; m += blockDim.x) {
            const T* const own = table + m * lines;
            T weight = static_cast<const T*>(args.weight)[mine + first + m];
            if (K::profile != 0) {
                T sums[3] = {0, 0, 0};
                for (int t = 0; t < s0; ++t) sums[0] += own[t];
                for (int t = 0; t < s1; ++t) sums[1] += own[s0 + t];
                for (int t = 0; t < s2; ++t) sums[2] += own[s0 + s1 + t];
                weight /= sums[0] * sums[1] * sums[2] + T(args.epsilon);
            }
            scaled[m] = weight;
        }
        sync_block();
        for (int p = thread; p < volume; p += blockDim.x) {
            const int t2 = s0 + s1 + p % s2, t1 = s0 + p / s2 % s1, t0 = p / s2 / s1;
            T sum = first == 0 ? T(0) : out[p];
            for (int m = 0; m < count; ++m) {
                const T* const own = table + m * lines;
                sum += scaled[m] * own[t0] * (own[t1] * own[t2]);
            }
            out[p] = sum;
        }
    }
}

template <class K>
STRIATE_DEVICE void dcls_differentiate(const SpacingArgs& args) {
    using T = typename K::T;
    STRIATE_SHARED_BYTES(bytes);
    const int sizes[3] = {int(args.size0), int(args.size1), int(args.size2)};
    const int lines = sizes[0] + sizes[1] + sizes[2], volume = sizes[0] * sizes[1] * sizes[2], lane = lane_index();
    T* const value = reinterpret_cast<T*>(bytes) + warp_index() * 3 * lines;
    T* const position = value + lines;
    T* const spread = position + lines;
    const i64 element = i64(blockIdx.x) * (blockDim.x / WARP) + warp_index();
    if (element >= args.filters * args.elements) return;
    for (int line = lane; line < lines; line += WARP) {
        const Fall<T> found = fall_of<K>(args, element, line);
        value[line] = found.value, position[line] = found.position, spread[line] = found.spread;
    }
    sync_warp();
    // Of each axis the sums of the profile and of its slopes.
    T sums[3][3];
    int begin = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        T parts[3] = {0, 0, 0};
        for (int t = begin + lane; t < begin + sizes[axis]; t += WARP)
            parts[0] += value[t], parts[1] += position[t], parts[2] += spread[t];
        for (int kind = 0; kind < 3; ++kind) sums[axis][kind] = over_warp(parts[kind]);
        begin += sizes[axis];
    }

    const i64 filter = element / args.elements;
    const T* const upstream = static_cast<const T*>(args.upstream) + filter * volume;
    T mean = 0, moved[3] = {0, 0, 0}, widened[3] = {0, 0, 0};
    for (int p = lane; p < volume; p += WARP) {
        const int t2 = sizes[0] + sizes[1] + p % sizes[2], t1 = sizes[0] + p / sizes[2] % sizes[1];
        const int at[3] = {p / sizes[2] / sizes[1], t1, t2};
        const T g = upstream[p], v[3] = {value[at[0]], value[t1], value[t2]};
        const T rest[3] = {g * (v[1] * v[2]), g * (v[0] * v[2]), g * (v[0] * v[1])};
        mean += rest[0] * v[0];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            moved[axis] += rest[axis] * position[at[axis]];
            if (K::spread) widened[axis] += rest[axis] * spread[at[axis]];
        }
    }
    mean = over_warp(mean);
    const T total = K::profile == 0 ? T(1) : sums[0][0] * sums[1][0] * sums[2][0] + T(args.epsilon);
    const T weight = static_cast<const T*>(args.weight)[element], share = mean / total;
    T* const out = static_cast<T*>(args.out) + filter * (1 + K::rank * (K::spread ? 2 : 1)) * args.elements +
                   (element - filter * args.elements);
    if (lane == 0) out[0] = share;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        const int row = axis == 0 ? K::row0 : axis == 1 ? K::row1 : K::row2;
        // The sum over the grid moves too; what does not move divides as it is.
        const T others = K::profile == 0 ? T(0) : sums[(axis + 1) % 3][0] * sums[(axis + 2) % 3][0];
#pragma unroll
        for (int kind = 1; kind < (K::spread ? 3 : 2); ++kind) {
            const T slope = over_warp(kind == 1 ? moved[axis] : widened[axis]) - share * (others * sums[axis][kind]);
            if (row >= 0 && lane == 0) out[(1 + (kind - 1) * K::rank + row) * args.elements] = weight * slope / total;
        }
    }
}

}  // namespace striate
