// The weight gradient of a depthwise convolution with stride 1 on tensor cores, one and two dimensions: a matrix product
// over positions, split among blocks whose partial sums another kernel adds in order.
//
// Lines of the gradient and of the source lie in shared memory with one pitch, so wide that a line of the gradient ends
// in zeros wherever a tap would reach into the next line of the source. Both are thereby one long signal each, and tap
// (r, s) is the sum over l of grad[l] source[l + r dilation pitch + s]. Of the product's two small indices,
//
//   row m      stands for tap row r and for s / (8 N): sources from l + r dilation pitch + 8 N j on, by ldmatrix
//   column n   stands for the rest of s: the gradient from l - n on, a Toeplitz matrix made of pairs of neighbours
//
// so that nothing is computed twice and only rows up to a multiple of sixteen in vain. Two warps may share the rows,
// others share the positions; their sums meet in shared memory in the order of their numbers. In float32 both signals
// are rounded to tf32 in shared memory, where an element is a word by itself.
//
// Constants of a translation unit, struct K:
//   T        Half, Bfloat or float
//   rows     sixteens of rows of a warp
//   columns  N, eighths of columns
//   warps_m  warps that share the rows

#pragma once

#include "axis.cuh"
#include "window.cuh"

namespace striate {

struct ToeplitzWeighArgs {
    const void* grad;
    const void* source;
    void* partial;
    Axis across, along;
    // Planes: steps of image, channel and row.
    i64 grad_image, grad_channel, grad_row, source_image, source_channel, source_row;
    i64 images, channels, spread;
    // Lines and columns of a tile of the gradient, how many tiles there are, and the distance of lines.
    i64 lines, width, line_tiles, width_tiles, splits, pitch;
    // Rows of the product for a row of taps; eighths of the long signals; what divides every row and step of planes.
    i64 parts, eighths, grad_piece, source_piece;
};

// Zeros before the first gradient: as far as a pair may lie behind, at most 7 for n and 7 for the alignment.
constexpr int MARGIN = 16;

// The pair of neighbours at element `at`, which may be odd.
STRIATE_DEVICE u32 pair_at(const u32* words, int at) {
    const u32 low = words[at >> 1], high = words[(at >> 1) + 1];
    return at & 1 ? low >> 16 | high << 16 : low;
}

// Adds the products of this warp's share of the positions: eighths from `first` up to `last`.
template <class K>
STRIATE_DEVICE void weigh_tf32(float (&sums)[K::rows][K::columns][4], const float* grads, int shift,
                               const float* const (&lines)[K::rows], int first, int last) {
    const float* const own = grads + MARGIN + lane_index() % 4 - lane_index() / 4 - shift;
    // f[j] belongs to eighth p - j.
    u32 f[K::columns][2];
    const auto matrix = [&](u32(&to)[2], int h) {
        for (int e = 0; e < 2; ++e) to[e] = h < 0 ? 0u : bits_of(own[8 * h + 4 * e]);
    };
#pragma unroll
    for (int j = 0; j < K::columns; ++j) matrix(f[j], first - 1 - j);
    for (int p = first; p < last; ++p) {
#pragma unroll
        for (int j = K::columns - 1; j > 0; --j) f[j][0] = f[j - 1][0], f[j][1] = f[j - 1][1];
        matrix(f[0], p);
#pragma unroll
        for (int m = 0; m < K::rows; ++m) {
            u32 a[4];
            ldmatrix<4>(a, lines[m] + 8 * p);
#pragma unroll
            for (int n = 0; n < K::columns; ++n) mma_m16n8k8_tf32(sums[m][n], a, f[n]);
        }
    }
}

// The same with half types, for pairs of eighths.
template <class K>
STRIATE_DEVICE void weigh_halves(float (&sums)[K::rows][K::columns][4], const typename K::T* halves, int shift,
                                 const typename K::T* const (&lines)[K::rows], int first, int last) {
    using T = typename K::T;
    const u32* const grads = reinterpret_cast<const u32*>(halves);
    const int pair = MARGIN + lane_index() % 4 * 2 - lane_index() / 4 - shift;
    const auto matrix = [&](int h) { return h < 0 ? 0u : pair_at(grads, pair + 8 * h); };
    // f[j] belongs to eighth 2 p + 1 - j.
    u32 f[K::columns + 1];
#pragma unroll
    for (int j = 0; j <= K::columns; ++j) f[j] = matrix(2 * first - 1 - j);
    for (int p = first; p < last; ++p) {
#pragma unroll
        for (int j = K::columns; j >= 2; --j) f[j] = f[j - 2];
        f[1] = matrix(2 * p);
        f[0] = matrix(2 * p + 1);
#pragma unroll
        for (int m = 0; m < K::rows; ++m) {
            u32 a[4];
            ldmatrix<4>(a, lines[m] + 16 * p);
#pragma unroll
            for (int n = 0; n < K::columns; ++n) mma_m16n8k16<T>(sums[m][n], a, {f[n + 1], f[n]});
        }
    }
}

// Sums of all warps, in the order of their shares, to `total`, a row of 8 N floats for each row of the product.
template <class K>
STRIATE_DEVICE void weigh_gather(float* total, const float (&sums)[K::rows][K::columns][4]) {
    const int shares = int(blockDim.x) / WARP / K::warps_m, share = warp_index() / K::warps_m;
    const int line = warp_index() % K::warps_m * 16 * K::rows + lane_index() / 4, pair = lane_index() % 4 * 2;
    for (int turn = 0; turn < shares; ++turn) {
        sync_block();
        if (turn != share) continue;
        for (int m = 0; m < K::rows; ++m)
            for (int n = 0; n < K::columns; ++n)
                for (int i = 0; i < 4; ++i) {
                    float& at = total[(line + 16 * m + i / 2 * 8) * 8 * K::columns + 8 * n + pair + i % 2];
                    at = turn == 0 ? sums[m][n][i] : at + sums[m][n][i];
                }
    }
    sync_block();
}

template <class T>
STRIATE_DEVICE void clear(T* from, int count) {
    for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) from[i] = T{};
}

template <class K>
STRIATE_DEVICE void toeplitz_weigh(const ToeplitzWeighArgs& args) {
    using T = typename K::T;
    const int channel = int(blockIdx.x) % int(args.channels), split = int(blockIdx.x) / int(args.channels);
    const int pitch = int(args.pitch), lines = int(args.lines), parts = int(args.parts);
    const int taps = int(args.across.kernel), reach = int(args.across.dilation);
    const int source_lines = lines + (taps - 1) * reach;
    STRIATE_SHARED_BYTES(bytes);
    T* const grads = reinterpret_cast<T*>(bytes);
    const int signal = MARGIN + int(most(lines * pitch, 8 * args.eighths)) + 16;
    T* const sources = grads + signal;
    const int behind = 8 * (parts * K::columns + 2) + 16;
    clear(grads, MARGIN);
    clear(grads + MARGIN + lines * pitch, signal - MARGIN - lines * pitch);
    clear(sources + source_lines * pitch, behind);

    const T* const grad = static_cast<const T*>(args.grad) + channel * args.grad_channel;
    const T* const source = static_cast<const T*>(args.source) + channel / int(args.spread) * args.source_channel;
    const int grad_piece = aligned_piece<T>(grad, args.grad_piece);
    const int source_piece = aligned_piece<T>(source, args.source_piece);
    const int shift = int(-args.along.pad_lo) & (source_piece - 1);

    const T* rows[K::rows];
#pragma unroll
    for (int m = 0; m < K::rows; ++m) {
        const int row = (warp_index() % K::warps_m * K::rows + m) * 16 + lane_index() % 16, tap = row / parts;
        rows[m] = sources + lane_index() / 16 * (16 / int(sizeof(T)));
        // Rows beyond the last tap repeat the first; nobody looks at their sums.
        if (tap < taps) rows[m] += tap * reach * pitch + row % parts * 8 * K::columns;
    }
    const int shares = int(blockDim.x) / WARP / K::warps_m, share = warp_index() / K::warps_m;
    // Steps of as many positions as a product adds up.
    const int steps = int(args.eighths) * int(sizeof(T)) / 4, each = (steps + shares - 1) / shares;
    const int first = int(least(share * each, steps)), last = int(least(first + each, steps));

    float sums[K::rows][K::columns][4];
#pragma unroll
    for (int m = 0; m < K::rows; ++m)
#pragma unroll
        for (int n = 0; n < K::columns; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[m][n][i] = 0.0f;
    const i64 tiles = args.line_tiles * args.width_tiles;
    for (i64 item = split; item < args.images * tiles; item += args.splits) {
        const i64 image = item / tiles;
        const int line = int(item % tiles / args.width_tiles) * lines;
        const int column = int(item % args.width_tiles) * int(args.width);
        const int end = int(least(column + args.width, args.along.output));
        sync_block();
        const Window<const T> front{grad + image * args.grad_image, 0, args.grad_row, line, int(args.across.output),
                                    column, end, 1, lines, pitch};
        load_window(front, grads + MARGIN, {0, pitch}, grad_piece);
        const Window<const T> back{source + image * args.source_image, 0, args.source_row,
                                   line - int(args.across.pad_lo), int(args.across.input),
                                   column - int(args.along.pad_lo) - shift, int(args.along.input),
                                   1, source_lines, pitch};
        load_window(back, sources, {0, pitch}, source_piece);
        cp_async_commit();
        cp_async_wait<0>();
        sync_block();
        round_to_tf32(grads + MARGIN, lines * pitch);
        round_to_tf32(sources, source_lines * pitch);
        if constexpr (sizeof(T) == 4)
            weigh_tf32<K>(sums, grads, shift, rows, first, last);
        else
            weigh_halves<K>(sums, grads, shift, rows, first, last);
    }

    float* const total = reinterpret_cast<float*>(bytes);
    weigh_gather<K>(total, sums);
    const int kernel = int(args.along.kernel), dilation = int(args.along.dilation);
    float* const out = static_cast<float*>(args.partial) + (split * args.channels + channel) * taps * kernel;
    for (int e = int(threadIdx.x); e < taps * kernel; e += int(blockDim.x)) {
        const int tap = e / kernel, s = e % kernel * dilation, part = s / (8 * K::columns);
        out[e] = total[(tap * parts + part) * 8 * K::columns + s % (8 * K::columns)];
    }
}

}  // namespace striate
