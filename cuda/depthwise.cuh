// Depthwise convolution of any rank, stride, dilation and padding, by direct summation: `produce` makes activations
// (forward, input gradient and transposed convolution), `weigh` the weight gradient.
//
// A block copies the part of the source that its tile meets into shared memory, in the accumulator's type and with
// zeros for padding, and every thread sums a row of results in registers, so that each number it loads serves several
// of them. Both memory orders are one text: the lanes of a warp lie along the columns of a plane, or along channels.
//
// A translation unit states its constants in a struct K:
//   T, W          storage of activations and of weights
//   last          whether channels are innermost in memory
//   reg           axis (1 or 2) along which a thread holds several results; the other one is called across
//   planes, n1, n2  threads of a block along channels, axis 1 and axis 2
//   r             results that a thread holds
//   s1, d1, s2, d2  distance in the source of neighbouring results, and of neighbouring taps
//   c1, c2        taps for which a tile is copied at once

#pragma once

#include "axis.cuh"
#include "scalar.cuh"
#include "statistics.cuh"

namespace striate {

// Where a number lies: offset of sample, channel and spatial position, and the sizes of the last two axes.
struct Places {
    i64 batch_step, channel_step, step;
    i64 size0, size1, size2;
};

STRIATE_DEVICE int at_most(int a, int b) { return a < b ? a : b; }

// A tile in shared memory of E1 rows and E2 columns of P channels (or samples), each element an accumulator.
template <bool LAST, int P, int E1, int E2>
struct Tile {
    static constexpr int step2 = LAST ? P : 1, step1 = E2 * step2, step_plane = LAST ? 1 : E1 * E2;
    static constexpr int elements = P * E1 * E2;

    // Copies the window that begins at (base1, base2), zeros where there is nothing. `line` is the element of its
    // first channel at position (0, 0), `plane_step` the way to the next, of which `planes` exist. Each source channel
    // stands for `spread` of the tile's, of the first one only for those after `lead`.
    template <class T, class Acc>
    static STRIATE_DEVICE void fill(Acc* tile, const T* line, const Places& at, int base1, int base2, i64 plane_step,
                                    int planes, int spread = 1, int lead = 0) {
        const int size1 = int(at.size1), size2 = int(at.size2), step = int(at.step);
        for (int e = threadIdx.x; e < elements; e += blockDim.x) {
            const int p = LAST ? e % P : e / (E1 * E2);
            const int i2 = (LAST ? e / P : e) % E2, i1 = (LAST ? e / P : e) / E2 % E1;
            const int row = base1 + i1, col = base2 + i2;
            const bool inside = unsigned(row) < unsigned(size1) && unsigned(col) < unsigned(size2) && p < planes;
            const int plane = spread == 1 ? p : (p + lead) / spread;
            tile[p * step_plane + i1 * step1 + i2 * step2] =
                inside ? Scalar<T>::widen(line[plane * plane_step + (row * size2 + col) * step]) : Acc(0);
        }
    }
};

// sums[r] += weight[t] * line[(r * S + t * D) * STEP] for r < R and t < `taps` <= C. What several sums need is
// loaded once where the window they span fits into registers.
template <int R, int C, int S, int D, int STEP, class Acc>
STRIATE_DEVICE void correlate(Acc (&sums)[R], const Acc (&weight)[C], const Acc* line, int taps) {
    constexpr int span = (R - 1) * S + (C - 1) * D + 1;
    if constexpr (span <= 48) {
        Acc window[span];
#pragma unroll
        for (int i = 0; i < span; ++i) window[i] = line[i * STEP];
#pragma unroll
        for (int t = 0; t < C; ++t) {
            if (t < taps) {
#pragma unroll
                for (int r = 0; r < R; ++r) sums[r] += weight[t] * window[r * S + t * D];
            }
        }
    } else {
#pragma unroll
        for (int t = 0; t < C; ++t) {
            if (t < taps) {
#pragma unroll
                for (int r = 0; r < R; ++r) sums[r] += weight[t] * line[(r * S + t * D) * STEP];
            }
        }
    }
}

// Constants that follow from a K.
template <class K>
struct Derived {
    using Acc = typename Scalar<typename K::T>::Acc;
    static constexpr bool rows = K::reg == 1;
    static constexpr int s = rows ? K::s1 : K::s2, d = rows ? K::d1 : K::d2;
    static constexpr int across_d = rows ? K::d2 : K::d1;
    static constexpr int c = rows ? K::c1 : K::c2, across_c = rows ? K::c2 : K::c1;
};

template <int SWEEPS>
struct ProduceArgs {
    static constexpr bool moments = false;
    const void* source;
    const void* weight;
    const void* bias;
    void* out;
    Places from, to;
    // Produced channels, blocks of them; source channel of a produced channel p: p / spread * joins + join.
    i64 channels, channel_blocks, spread, joins;
    i64 kernel0, kernel1, kernel2;
    i64 sweep_counts[3], tile_counts[3];
    Sweep sweeps[3][SWEEPS];
};

// Leaves the moments of the block's results of every channel behind, in memory order NCHW and with one sweep.
template <class K, class Args, class Inside>
STRIATE_DEVICE void produced_moments(const Args& args, const typename Derived<K>::Acc (&sums)[K::r], int count,
                                     const Inside& inside) {
    using T = typename K::T;
    using Acc = typename Derived<K>::Acc;
    constexpr int group = K::n1 * K::n2;
    unsigned rest = blockIdx.x;
    const i64 tiles = args.tile_counts[0] * args.tile_counts[1] * args.tile_counts[2];
    const int tile = peel(rest, tiles), channel = peel(rest, args.channel_blocks) * K::planes + threadIdx.x / group;
    Moments<Acc>* to = nullptr;
    if (channel < args.channels) to = static_cast<Moments<Acc>*>(args.parts) + channel * args.slots + rest * tiles + tile;
    write_moments<Acc>(to, count, group, [&](const auto& visit) {
#pragma unroll
        for (int r = 0; r < K::r; ++r)
            if (inside(r)) visit(Scalar<T>::widen(Scalar<T>::narrow(sums[r])));
    });
}

// Weights of a chunk of taps, per plane those along the register axis side by side; beyond the last tap nothing is
// read.
template <class K>
STRIATE_DEVICE void fill_taps(typename Derived<K>::Acc* taps, const typename K::W* weight, i64 plane_step, int planes,
                              const Sweep& a1, const Sweep& a2, int c1, int c2, int size2) {
    constexpr int each = K::c1 * K::c2;
    for (int e = threadIdx.x; e < K::planes * each; e += blockDim.x) {
        const int p = K::last ? e % K::planes : e / each;
        const int t = (K::last ? e / K::planes : e) % each;
        const int t1 = c1 + (Derived<K>::rows ? t % K::c1 : t / K::c2);
        const int t2 = c2 + (Derived<K>::rows ? t / K::c1 : t % K::c2);
        if (t1 < int(a1.taps) && t2 < int(a2.taps) && p < planes) {
            const int k1 = int(a1.tap0) + t1 * int(a1.tap_step), k2 = int(a2.tap0) + t2 * int(a2.tap_step);
            taps[e] = Scalar<typename K::W>::widen(weight[p * plane_step + k1 * size2 + k2]);
        }
    }
}

template <class K, class Args>
STRIATE_DEVICE void depthwise_produce(const Args& args) {
    using T = typename K::T;
    using W = typename K::W;
    using V = Derived<K>;
    using Acc = typename V::Acc;
    constexpr int o1 = K::n1 * (V::rows ? K::r : 1), o2 = K::n2 * (V::rows ? 1 : K::r);
    constexpr int e1 = (o1 - 1) * K::s1 + (K::c1 - 1) * K::d1 + 1, e2 = (o2 - 1) * K::s2 + (K::c2 - 1) * K::d2 + 1;
    using Window = Tile<K::last, K::planes, e1, e2>;
    STRIATE_SHARED_BYTES(bytes);
    Acc* const tile = reinterpret_cast<Acc*>(bytes);
    Acc* const taps = tile + Window::elements;

    unsigned rest = blockIdx.x;
    const Sweep& a2 = args.sweeps[2][peel(rest, args.sweep_counts[2])];
    const Sweep& a1 = args.sweeps[1][peel(rest, args.sweep_counts[1])];
    const Sweep& a0 = args.sweeps[0][peel(rest, args.sweep_counts[0])];
    const int first2 = peel(rest, args.tile_counts[2]) * o2, first1 = peel(rest, args.tile_counts[1]) * o1;
    const int j0 = peel(rest, args.tile_counts[0]);
    const int channel = peel(rest, args.channel_blocks) * K::planes;
    const i64 sample = rest;
    if (first2 >= a2.outs || first1 >= a1.outs || j0 >= a0.outs) return;

    const int thread = threadIdx.x;
    const int tp = K::last ? thread % K::planes : thread / (K::n1 * K::n2);
    const int t2 = (K::last ? thread / K::planes : thread) % K::n2;
    const int t1 = (K::last ? thread / K::planes : thread) / K::n2 % K::n1;
    const int pos1 = t1 * (V::rows ? K::r : 1), pos2 = t2 * (V::rows ? 1 : K::r);
    const int planes = at_most(K::planes, int(args.channels) - channel);

    Acc sums[K::r];
    Acc start = 0;
    if (args.bias != nullptr && tp < planes) start = Scalar<W>::widen(static_cast<const W*>(args.bias)[channel + tp]);
#pragma unroll
    for (int r = 0; r < K::r; ++r) sums[r] = start;

    const i64 kernel = args.kernel0 * args.kernel1 * args.kernel2;
    const int spread = int(args.spread), joins = int(args.joins);
    const Acc* const mine = tile + tp * Window::step_plane + pos1 * K::s1 * Window::step1 + pos2 * K::s2 * Window::step2;
    constexpr int along = V::rows ? Window::step1 : Window::step2, across = V::rows ? Window::step2 : Window::step1;
    for (int join = 0; join < joins; ++join) {
        const T* const source = static_cast<const T*>(args.source) + sample * args.from.batch_step +
                                (i64(channel) / spread * joins + join) * args.from.channel_step;
        const W* const weight = static_cast<const W*>(args.weight) + (i64(channel) * joins + join) * kernel;
        for (int tap0 = 0; tap0 < int(a0.taps); ++tap0) {
            const i64 i0 = a0.src0 + j0 * a0.src_step + tap0 * a0.reach_step;
            if (i0 < 0 || i0 >= args.from.size0) continue;
            const i64 k0 = a0.tap0 + tap0 * a0.tap_step;
            const T* const slice = source + i0 * args.from.size1 * args.from.size2 * args.from.step;
            for (int c1 = 0; c1 < int(a1.taps); c1 += K::c1) {
                const int base1 = int(a1.src0) + first1 * K::s1 + c1 * K::d1;
                if (base1 >= int(args.from.size1) || base1 + e1 <= 0) continue;
                for (int c2 = 0; c2 < int(a2.taps); c2 += K::c2) {
                    const int base2 = int(a2.src0) + first2 * K::s2 + c2 * K::d2;
                    if (base2 >= int(args.from.size2) || base2 + e2 <= 0) continue;
                    sync_block();
                    Window::fill(tile, slice, args.from, base1, base2, args.from.channel_step * joins, planes, spread,
                                 channel % spread);
                    fill_taps<K>(taps, weight + k0 * args.kernel1 * args.kernel2, kernel * joins, planes, a1, a2, c1,
                                 c2, int(args.kernel2));
                    sync_block();
                    const int left = V::rows ? int(a1.taps) - c1 : int(a2.taps) - c2;
                    const int left_across = V::rows ? int(a2.taps) - c2 : int(a1.taps) - c1;
                    for (int q = 0; q < at_most(V::across_c, left_across); ++q) {
                        Acc w[V::c];
#pragma unroll
                        for (int t = 0; t < V::c; ++t)
                            w[t] = taps[K::last ? (q * V::c + t) * K::planes + tp : (tp * V::across_c + q) * V::c + t];
                        correlate<K::r, V::c, V::s, V::d, along>(sums, w, mine + q * V::across_d * across, left);
                    }
                }
            }
        }
    }

    if constexpr (Args::moments) {
        const int left1 = int(a1.outs) - first1, left2 = int(a2.outs) - first2;
        produced_moments<K>(args, sums, at_most(o1, left1) * at_most(o2, left2), [&](int r) {
            return pos1 + (V::rows ? r : 0) < left1 && pos2 + (V::rows ? 0 : r) < left2;
        });
    }
    T* const out = static_cast<T*>(args.out) + sample * args.to.batch_step + i64(channel) * args.to.channel_step;
    const i64 p0 = a0.out0 + j0 * a0.out_step;
    const auto store = [&](int plane, int q1, int q2, Acc value) {
        const int j1 = first1 + q1, j2 = first2 + q2;
        if (plane >= planes || j1 >= int(a1.outs) || j2 >= int(a2.outs)) return;
        const i64 p1 = a1.out0 + j1 * a1.out_step, p2 = a2.out0 + j2 * a2.out_step;
        out[plane * args.to.channel_step + ((p0 * args.to.size1 + p1) * args.to.size2 + p2) * args.to.step] =
            Scalar<T>::narrow(value);
    };
    if constexpr (!K::last && !V::rows) {
        // A thread's results are neighbours in memory: they change hands, so that a warp writes whole lines.
        sync_block();
#pragma unroll
        for (int r = 0; r < K::r; ++r) tile[(tp * o1 + pos1) * o2 + pos2 + r] = sums[r];
        sync_block();
        for (int e = thread; e < K::planes * o1 * o2; e += blockDim.x)
            store(e / (o1 * o2), e / o2 % o1, e % o2, tile[e]);
    } else {
#pragma unroll
        for (int r = 0; r < K::r; ++r) store(tp, pos1 + (V::rows ? r : 0), pos2 + (V::rows ? 0 : r), sums[r]);
    }
}

struct WeighArgs {
    const void* grad;
    const void* source;
    void* partial;
    Places over, from;
    // Channels of the gradient, blocks of them; a source channel serves `spread` of them.
    i64 channels, channel_blocks, spread, batch;
    i64 chunks1, chunks2, tiles1, tiles2, splits;
    Axis axes[3];
    Sweep a1, a2;
};

// Partial weight gradients [split][channel][tap]. Here a thread's results are r taps, and what `produce` calls taps
// are positions: K::t of them in registers along axis `reg`, the rest along the lanes and in turn.
// Further constants: warps; t; units, the groups of r taps that a warp sums; lanes2, lanes along axis 2 (the others
// are neighbouring samples, or with channels last the channels); o1, o2, the positions of a tile.
template <class K>
STRIATE_DEVICE void depthwise_weigh(const WeighArgs& args) {
    using T = typename K::T;
    using V = Derived<K>;
    using Acc = typename V::Acc;
    constexpr int e1 = (K::o1 - 1) * K::s1 + (K::c1 - 1) * K::d1 + 1, e2 = (K::o2 - 1) * K::s2 + (K::c2 - 1) * K::d2 + 1;
    using Window = Tile<K::last, K::planes, e1, e2>;
    using Front = Tile<K::last, K::planes, K::o1, K::o2>;
    STRIATE_SHARED_BYTES(bytes);
    Acc* const window = reinterpret_cast<Acc*>(bytes);
    Acc* const front = window + Window::elements;

    unsigned rest = blockIdx.x;
    const int c2 = peel(rest, args.chunks2) * K::c2, c1 = peel(rest, args.chunks1) * K::c1;
    const int k0 = peel(rest, args.axes[0].kernel);
    const int channel = peel(rest, args.channel_blocks) * (K::last ? K::planes : 1);
    const int split = int(rest);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int plane = K::last ? lane : lane / K::lanes2;
    const int pos2 = K::last ? 0 : lane % K::lanes2 * (V::rows ? 1 : K::t);
    constexpr int reg_groups = V::c / K::r;
    Acc sums[K::units][K::r];
#pragma unroll
    for (int u = 0; u < K::units; ++u)
#pragma unroll
        for (int r = 0; r < K::r; ++r) sums[u][r] = 0;

    const int spread = int(args.spread), samples = K::last ? 1 : K::planes;
    const Walk depth = walk_dw(args.axes[0], k0);
    const i64 groups = ceil_div(args.batch, samples);
    const i64 items = groups * depth.len * args.tiles1 * args.tiles2;
    for (i64 item = split; item < items; item += args.splits) {
        i64 left = item;
        const int first2 = int(left % args.tiles2) * K::o2;
        left /= args.tiles2;
        const int first1 = int(left % args.tiles1) * K::o1;
        left /= args.tiles1;
        const i64 step0 = left % depth.len, sample = left / depth.len * samples;
        const i64 o0 = depth.a0 + step0 * depth.a_step, i0 = depth.b0 + step0 * depth.b_step;
        const T* const grad = static_cast<const T*>(args.grad) + sample * args.over.batch_step +
                              i64(channel) * args.over.channel_step +
                              o0 * args.over.size1 * args.over.size2 * args.over.step;
        const T* const source = static_cast<const T*>(args.source) + sample * args.from.batch_step +
                                i64(channel / spread) * args.from.channel_step +
                                i0 * args.from.size1 * args.from.size2 * args.from.step;
        const int there = K::last ? at_most(K::planes, int(args.channels) - channel)
                                  : at_most(samples, int(args.batch - sample));
        const int base1 = int(args.a1.src0) + first1 * K::s1 + c1 * K::d1;
        const int base2 = int(args.a2.src0) + first2 * K::s2 + c2 * K::d2;
        sync_block();
        Front::fill(front, grad, args.over, first1, first2, K::last ? args.over.channel_step : args.over.batch_step,
                    there);
        Window::fill(window, source, args.from, base1, base2,
                     K::last ? args.from.channel_step : args.from.batch_step, there, K::last ? spread : 1,
                     channel % spread);
        sync_block();
        for (int turn = 0; turn < (V::rows ? 1 : K::o1); ++turn) {
            constexpr int along = V::rows ? Front::step1 : Front::step2;
            Acc dy[K::t];
            const Acc* const here = front + plane * Front::step_plane + turn * Front::step1 + pos2 * Front::step2;
#pragma unroll
            for (int t = 0; t < K::t; ++t) dy[t] = here[t * along];
#pragma unroll
            for (int u = 0; u < K::units; ++u) {
                const int unit = u * K::warps + warp;
                const int tap = unit % reg_groups * K::r, across = unit / reg_groups;
                const int q1 = turn * K::s1 + (V::rows ? tap : across) * K::d1;
                const int q2 = pos2 * K::s2 + (V::rows ? across : tap) * K::d2;
                if (across < V::across_c)
                    correlate<K::r, K::t, V::d, V::s, V::rows ? Window::step1 : Window::step2>(
                        sums[u], dy, window + plane * Window::step_plane + q1 * Window::step1 + q2 * Window::step2,
                        K::t);
            }
        }
    }

    Acc* const partial = static_cast<Acc*>(args.partial) +
                         (i64(split) * args.channels + channel) * args.axes[0].kernel * args.axes[1].kernel * args.axes[2].kernel;
#pragma unroll
    for (int u = 0; u < K::units; ++u) {
        const int unit = u * K::warps + warp;
        const int tap = unit % reg_groups * K::r, across = unit / reg_groups;
#pragma unroll
        for (int r = 0; r < K::r; ++r) {
            Acc sum = sums[u][r];
            if constexpr (!K::last)
                for (int other = 16; other > 0; other /= 2) sum += shuffle_xor(sum, other);
            const i64 k1 = c1 + (V::rows ? tap + r : across), k2 = c2 + (V::rows ? across : tap + r);
            const bool real = across < V::across_c && k1 < args.axes[1].kernel && k2 < args.axes[2].kernel;
            const int owner = K::last ? plane : 0;
            if (real && (K::last ? channel + plane < int(args.channels) : lane == 0))
                partial[((owner * args.axes[0].kernel + k0) * args.axes[1].kernel + k1) * args.axes[2].kernel + k2] = sum;
        }
    }
}

struct SumArgs {
    const void* partial;
    void* out;
    i64 count, splits;
};

// out[i] = the partial results of i, added in the order of their numbers.
template <class Acc, class W>
STRIATE_DEVICE void sum_partials(const SumArgs& args) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= args.count) return;
    Acc sum = 0;
    for (i64 split = 0; split < args.splits; ++split) sum += static_cast<const Acc*>(args.partial)[split * args.count + i];
    static_cast<W*>(args.out)[i] = Scalar<W>::narrow(sum);
}

}  // namespace striate
