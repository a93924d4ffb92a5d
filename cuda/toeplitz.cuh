// Depthwise convolution with stride 1 on tensor cores, forward and input gradient, one and two dimensions.
//
// One axis, called `along`, becomes a matrix product: eight neighbouring results of a line are a row of sources times a
// Toeplitz matrix of taps, whose element (k, n) is tap 8 h + k - n for the h-th eight sources. The taps of the other
// axis, `across`, are taken in turn, each meeting the sources one line further. A matrix of taps is made in registers
// from two copies of the tap row in shared memory, the second one shifted by one element so that every pair of
// neighbours is an aligned word. Sources are read by ldmatrix, whose rows may start at any multiple of eight elements:
// sixteen rows may be lines of one image or of several, or neighbouring stretches of one long signal.
//
//   for each tap across
//       for each group of G eighths of the taps along        f[h]    = matrices of taps
//           sources of 8 (N + G - 1) columns, 16 rows        block[] = ldmatrix
//           for n < N, h < G: sum[n] += block[n + h] f[h]    two eighths in one mma of depth 16
//
// In float32 both operands are rounded to tf32 once, in shared memory. There a tap is a word of its own, one copy of
// the tap row is enough, and an eighth is one mma of depth 8.
//
// Sums are carried in float. A source that is not finite spreads over its tile, for the matrices contain zeros.
//
// Constants of a translation unit, struct K:
//   T       Half, Bfloat or float, of activations, weights and bias
//   mode    0: lines are rows of the plane; 1: lines are columns, which are turned on their way into shared memory;
//           2: one line, cut into stretches of 8 * tiles elements
//   tiles   N, eighths of results that a warp sums along the line, odd in mode 2
//   group   G

#pragma once

#include "axis.cuh"
#include "statistics.cuh"
#include "window.cuh"

namespace striate {

struct ToeplitzArgs {
    static constexpr bool moments = false;
    const void* source;
    const void* weight;
    const void* bias;
    void* out;
    Sweep across, along;
    // Planes: steps of image, channel and row, and the number of positions on each axis.
    i64 from_image, from_channel, from_row, from_across, from_along;
    i64 to_image, to_channel, to_row;
    // A source channel serves `spread` of the produced ones.
    i64 images, spread;
    i64 kernel, across_step, along_step;
    // The tile of a block: lines of an image, images, how many of each there are, lines in shared memory.
    i64 lines, image_count, line_tiles, along_tiles, image_tiles, source_lines;
    // Eighths of taps of a line, a multiple of `group`; words of a copy of them; elements between lines.
    i64 eighths, copy, pitch;
    // What divides every row and step of planes, at most 8.
    i64 from_piece, to_piece;
};

// Tap number `at` of a line whose taps lie `dilation` apart; zero between them and beyond the ends.
template <class T>
STRIATE_DEVICE T tap_at(const T* weight, int at, const Sweep& along, i64 step) {
    const int dilation = int(along.reach_step), t = dilation == 1 ? at : at / dilation;
    if (at < 0 || t >= int(along.taps) || t * dilation != at) return T{};
    return weight[(along.tap0 + t * along.tap_step) * step];
}

// Two copies of every tap row: word m of copy e holds taps 2 m + e - 8 - shift and the next. Or, where a tap is a word,
// one in the place of both: word m holds tap m - 8 - shift.
template <class T>
STRIATE_DEVICE void fill_taps(u32* words, const T* weight, const ToeplitzArgs& args, int shift) {
    constexpr int each = 4 / int(sizeof(T));
    const int copy = int(args.copy), count = (8 * int(args.eighths) + 8) / each;
    each_piece(1, int(args.across.taps), count, [&](int, int t, int m) {
        const T* row = weight + (args.across.tap0 + t * args.across.tap_step) * args.across_step;
        const auto tap = [&](int e) { return tap_at(row, each * m + e - 8 - shift, args.along, args.along_step); };
        u32* const to = words + 2 * t * copy + m;
        if constexpr (each == 1) {
            *to = to_tf32(tap(0));
        } else {
            u32 taps[3];
            for (int e = 0; e < 3; ++e) taps[e] = tap(e).bits;
            to[0] = taps[0] | taps[1] << 16;
            to[copy] = taps[1] | taps[2] << 16;
        }
    });
}

// Where a lane finds its tap, or pair of taps, of the first matrix of a tap row.
template <class T>
STRIATE_DEVICE const u32* lane_taps(const u32* taps, int copy) {
    const int group = lane_index() / 4, odd = group % 2;
    return taps + lane_index() % 4 + (sizeof(T) == 4 ? 8 - group : odd * copy + 4 - (group + odd) / 2);
}

// Adds what the lines at `line` (of this lane's row) and the taps at `taps` (of this lane) contribute.
template <class K>
STRIATE_DEVICE void toeplitz_tf32(float (&sums)[K::tiles][4], const float* line, const u32* taps) {
    u32 f[K::group][2];
#pragma unroll
    for (int h = 0; h < K::group; ++h) f[h][0] = taps[8 * h], f[h][1] = taps[8 * h + 4];
#pragma unroll
    for (int j = 0; j < K::tiles + K::group - 1; ++j) {
        u32 block[4];
        ldmatrix<4>(block, line + 8 * j);
#pragma unroll
        for (int h = 0; h < K::group; ++h)
            if (j >= h && j - h < K::tiles) mma_m16n8k8_tf32(sums[j - h], block, f[h]);
    }
}

// The same with half types, whose blocks stay in registers until two of them meet two matrices.
template <class K>
STRIATE_DEVICE void toeplitz_halves(float (&sums)[K::tiles][4], const typename K::T* line, const u32* taps) {
    using T = typename K::T;
    constexpr int blocks = K::tiles + K::group - 1;
    u32 f[K::group], block[2 * blocks];
#pragma unroll
    for (int h = 0; h < K::group; ++h) f[h] = taps[4 * h];
#pragma unroll
    for (int j = 0; j < blocks; j += 2) {
        if (j + 1 < blocks)
            ldmatrix<4>(block + 2 * j, line + 8 * j);
        else
            ldmatrix<2>(block + 2 * j, line + 8 * j);
    }
#pragma unroll
    for (int h = 0; h < K::group; h += 2)
#pragma unroll
        for (int n = 0; n < K::tiles; ++n) {
            const u32* b = block + 2 * (n + h);
            if (h + 1 < K::group)
                mma_m16n8k16<T>(sums[n], {b[0], b[1], b[2], b[3]}, {f[h], f[h + 1]});
            else
                mma_m16n8k8<T>(sums[n], {b[0], b[1]}, f[h]);
        }
}

template <class K>
STRIATE_DEVICE void toeplitz_products(float (&sums)[K::tiles][4], const typename K::T* line, const u32* taps) {
    if constexpr (sizeof(typename K::T) == 4)
        toeplitz_tf32<K>(sums, line, taps);
    else
        toeplitz_halves<K>(sums, line, taps);
}

// Which part of the problem a block computes.
struct ToeplitzTile {
    int along, across, image, channel;
};

template <class K>
STRIATE_DEVICE ToeplitzTile toeplitz_tile(const ToeplitzArgs& args, int along_size) {
    unsigned rest = blockIdx.x;
    const auto peel = [&](i64 choices) {
        const unsigned digit = rest % unsigned(choices);
        rest /= unsigned(choices);
        return int(digit);
    };
    ToeplitzTile tile;
    tile.along = peel(args.along_tiles) * along_size;
    tile.across = peel(args.line_tiles) * int(args.lines);
    tile.image = peel(args.image_tiles) * int(args.image_count);
    tile.channel = int(rest);
    return tile;
}

// Rounds sums and lays them out in shared memory, in mode 1 by columns of the plane; sixteen lines to a warp.
template <class K>
STRIATE_DEVICE void toeplitz_stage(typename K::T* stage, const float (&sums)[K::tiles][4], int pitch) {
    using T = typename K::T;
    const int pair = lane_index() % 4 * 2, first = warp_index() * 16 + lane_index() / 4;
#pragma unroll
    for (int n = 0; n < K::tiles; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int line = first + 8 * half, at = 8 * n + pair;
            const T left = Scalar<T>::narrow(sums[n][2 * half]), right = Scalar<T>::narrow(sums[n][2 * half + 1]);
            if constexpr (K::mode == 1) {
                stage[at * pitch + line] = left;
                stage[(at + 1) * pitch + line] = right;
            } else {
                store(stage + line * pitch + at, Pack<T, 2>{{left, right}});
            }
        }
}

// Leaves the moments of the block's results behind. A warp's row holds results along a line, those of no line none.
template <class K, class Args>
STRIATE_DEVICE void toeplitz_moments(const Args& args, const ToeplitzTile& tile, int images,
                                     const float (&sums)[K::tiles][4]) {
    using T = typename K::T;
    constexpr int width = 8 * K::tiles;
    const int left = int(args.along.outs) - tile.along, lines = int(args.lines);
    const int there = int(least(args.lines, args.across.outs - tile.across));
    const int first = warp_index() * 16 + lane_index() / 4, pair = lane_index() % 4 * 2;
    int lefts[2];
    for (int half = 0; half < 2; ++half) {
        const int row = first + 8 * half;
        if constexpr (K::mode == 2)
            lefts[half] = left - row * width - pair;
        else
            lefts[half] = row / lines < images && row % lines < there ? left - pair : 0;
    }
    const int count = K::mode == 2 ? int(least(left, int(blockDim.x) / WARP * 16 * width))
                                   : images * there * int(least(left, width));
    write_moments<float>(static_cast<Moments<float>*>(args.parts) + blockIdx.x, count, blockDim.x, [&](const auto& visit) {
#pragma unroll
        for (int n = 0; n < K::tiles; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (8 * n + i % 2 < lefts[i / 2]) visit(Scalar<T>::widen(Scalar<T>::narrow(sums[n][i])));
    });
}

template <class K, class Args>
STRIATE_DEVICE void toeplitz_produce(const Args& args) {
    using T = typename K::T;
    constexpr int width = 8 * K::tiles;
    const int warps = int(blockDim.x) / WARP, rows = 16 * warps;
    const int along_size = K::mode == 2 ? rows * width : width;
    const ToeplitzTile tile = toeplitz_tile<K>(args, along_size);
    const int images = int(least(args.image_count, args.images - tile.image)), lines = int(args.lines);
    STRIATE_SHARED_BYTES(bytes);
    const int pitch = int(args.pitch), source_lines = int(args.source_lines);
    u32* const taps = reinterpret_cast<u32*>(bytes);
    T* const sources = reinterpret_cast<T*>(taps + 2 * args.across.taps * args.copy);

    // Columns in shared memory begin at a multiple of the piece; the taps make up for the difference.
    const T* const plane = static_cast<const T*>(args.source) + tile.image * args.from_image +
                           tile.channel / int(args.spread) * args.from_channel;
    const int piece = aligned_piece<T>(plane, args.from_piece);
    const int first_along = int(args.along.src0) + tile.along, first_across = int(args.across.src0) + tile.across;
    const int unaligned = K::mode == 1 ? 0 : first_along & (piece - 1);
    const int depth = 8 * (K::tiles + int(args.eighths) - 1);
    const int skipped = K::mode == 1 ? first_across & (piece - 1) : 0;
    const int kept = K::mode == 1 ? (source_lines + 14) & ~7 : source_lines;
    if constexpr (K::mode == 1) {
        // Columns are lines here. They, too, are read from a multiple of the piece, lines before the first unused.
        const Window<const T> window{plane,        args.from_image,         args.from_row,
                                     first_along,  int(args.from_along),    first_across - skipped,
                                     int(args.from_across), images,         depth,
                                     kept};
        load_window_turned(window, sources, {kept * pitch, pitch}, piece);
    } else {
        const int columns = K::mode == 2 ? along_size - width + depth : depth;
        const Window<const T> window{plane,        args.from_image,      args.from_row,
                                     first_across, int(args.from_across), first_along - unaligned,
                                     int(args.from_along), images,       source_lines,
                                     columns};
        load_window(window, sources, {source_lines * pitch, pitch}, piece);
    }
    cp_async_commit();
    fill_taps(taps, static_cast<const T*>(args.weight) + tile.channel * args.kernel, args, unaligned);
    cp_async_wait<0>();
    sync_block();
    round_to_tf32(sources, K::mode == 2 ? along_size - width + depth : images * kept * pitch);

    const int lane = lane_index(), row = warp_index() * 16 + lane % 16;
    int line = row;
    if constexpr (K::mode != 2) {
        const int image = row / lines;
        // Rows beyond the last image repeat the first; nobody looks at their sums.
        line = skipped + (image < images ? image * kept + row % lines : 0);
    }
    const u32* const own_taps = lane_taps<T>(taps, int(args.copy));
    const T* const begin = sources + line * pitch + lane / 16 * (16 / int(sizeof(T)));
    float sums[K::tiles][4];
    const float start = args.bias ? Scalar<T>::widen(static_cast<const T*>(args.bias)[tile.channel]) : 0.0f;
#pragma unroll
    for (int n = 0; n < K::tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n][i] = start;
    for (int t = 0; t < int(args.across.taps); ++t)
        for (int h = 0; h < int(args.eighths); h += K::group)
            toeplitz_products<K>(sums, begin + t * int(args.across.reach_step) * pitch + 8 * h,
                                 own_taps + 2 * t * args.copy + 2 * int(sizeof(T)) * h);

    if constexpr (Args::moments) toeplitz_moments<K>(args, tile, images, sums);
    sync_block();
    constexpr int along_pitch = 8 * (K::tiles | 1);
    T* const stage = reinterpret_cast<T*>(bytes);
    toeplitz_stage<K>(stage, sums, K::mode == 1 ? rows + 8 : along_pitch);
    sync_block();
    T* const out = static_cast<T*>(args.out) + tile.image * args.to_image + tile.channel * args.to_channel;
    Window<T> window{out,           args.to_image,         args.to_row,          tile.across,
                     int(args.across.outs), tile.along,    int(args.along.outs), images,
                     lines,         along_size};
    Place place{lines * along_pitch, along_pitch};
    if constexpr (K::mode == 1) {
        window.line0 = tile.along, window.line_limit = int(args.along.outs), window.lines = width;
        window.column0 = tile.across, window.column_limit = int(args.across.outs), window.columns = lines;
        place = {lines, rows + 8};
    }
    store_window(window, stage, place, aligned_piece<T>(out, args.to_piece));
}

}  // namespace striate
