// Convolutions with long kernels by transforms, and the gradients of such kernels.
//
// A line is a real polynomial of 2m coefficients: a channel of a sample, or a window of it, or a kernel, of 1 to 3
// axes, of which the host has laid rows far enough apart. Its halves are the real and imaginary parts of a complex
// polynomial modulo z^m - i, which is the same ring modulo z^2m + 1: a real transform costs half a complex one, and no
// symmetry of spectra is ever taken apart. Modulo z^2s - c a polynomial a + z^s b is, modulo z^s - w and z^s + w with
// w w = c, a + w b and a - w b. Halving in place leaves values in a scrambled order, which is every spectrum's order
// and which the way back undoes: nothing is reordered, and one root serves a whole block of coefficients.
//
// A thread holds 16 numbers and does 4 levels at a time in registers; between such passes the threads of a line
// exchange numbers through shared memory, real parts and imaginary parts one after the other where both do not fit.
// Lines longer than a block holds are first cut by passes through global memory, 16 parts each, which are then lines
// of their own with roots of their own. Every number is written by one thread and summed in one order.
//
// The numbers of a line in global memory lie as the threads hold them: number e of thread t at e * threads + t.
//
// Roots: block b of 2^l blocks has w = exp(2 pi i (2^-l / 8 + rev(b) / 2)), rev(b) being the mirrored binary fraction.
// The table has, for every block of every pass, the four roots exp(2 pi i angle / 2^k) of its own first blocks in the
// pass's levels; those of the others are these times constants.

#pragma once

#include "activation.cuh"
#include "tile.cuh"

namespace striate {

template <class A>
struct alignas(2 * sizeof(A)) Complex {
    A re, im;
};

// Positions of a tensor as coefficients: `extent` positions per axis, repeats included, which lie in memory from
// `start` on and repeat after `period`; the first is coefficient `origin`.
struct FftSignal {
    i64 extent[3], period[3], start[3], stride[3];
    i64 sample, channel, origin;
};

// What of a signal a line is: coefficients from lowest + window * each on. Those from begin + window * each to the
// next window, or `end`, are the line's own.
struct FftArgs {
    const void* from;
    void* to;
    void* space;         // numbers of lines
    const void* values;  // spectra of kernels, or sums
    const void* roots;
    const void *pregate, *postgate, *bias;  // factors where `from` and `to` lie, and a number for each channel
    i64 lines, first;  // how many, and the number of the first: (channel * samples + sample) * windows + window
    i64 samples, windows;
    i64 sharing, kernel;  // lines that share a spectrum, and the number of the first spectrum among `values`
    i64 sums, apart;      // sums of a line that are added, and numbers between them
    i64 lowest, each, begin, end;
    i64 steps[2];  // coefficients between neighbours along the first two axes
    i64 turn;      // coefficient u of a kernel is its coefficient turn - u, if this is not negative
    i64 clip;      // what is read: 0: everything; 1: what lies before the line's end; 2: the line's own
    i64 scale;     // and divided by 2^scale
    FftSignal in, out;
};

// What is read begins with `low` and ends before `high`, what is written with `begin` and `end`.
struct FftLine {
    i64 sample, channel;
    int lowest, begin, end, low, high;
};

STRIATE_DEVICE FftLine fft_line(const FftArgs& args, i64 index) {
    const u32 number = u32(args.first + index), windows = u32(args.windows), samples = u32(args.samples);
    const u32 window = number % windows, row = number / windows;
    const int begin = int(args.begin + window * args.each), end = int(least(begin + args.each, args.end));
    return {row % samples, row / samples, int(args.lowest + window * args.each), begin, end,
            args.clip > 1 ? begin : -(1 << 30), args.clip > 0 ? end : 1 << 30};
}

// Where coefficient u of a signal lies, if it is a position of the tensor.
template <class K>
STRIATE_DEVICE bool fft_place(const FftArgs& args, const FftSignal& signal, int u, i64& at) {
    if (args.turn >= 0) u = int(args.turn) - u;
    u -= int(signal.origin);
    if (u < 0) return false;
    u32 v[3] = {0, 0, u32(u)};
#pragma unroll
    for (int axis = 3 - K::rank; axis < 2; ++axis) {
        v[axis] = v[2] / u32(args.steps[axis]);
        v[2] -= v[axis] * u32(args.steps[axis]);
    }
    at = 0;
#pragma unroll
    for (int axis = 3 - K::rank; axis < 3; ++axis) {
        if (v[axis] >= u32(signal.extent[axis])) return false;
        if (K::periodic) v[axis] = (v[axis] + u32(signal.start[axis])) % u32(signal.period[axis]);
        at += v[axis] * signal.stride[axis];
    }
    return true;
}

// Coefficient p of a line.
template <class K>
STRIATE_DEVICE typename K::A fft_coefficient(const FftArgs& args, const FftLine& line, int p) {
    using S = typename K::S;
    using A = typename K::A;
    const int u = line.lowest + p;
    i64 at;
    if (u < line.low || u >= line.high || !fft_place<K>(args, args.in, u, at)) return 0;
    at += line.sample * args.in.sample + line.channel * args.in.channel;
    A value = Scalar<S>::widen(static_cast<const S*>(args.from)[at]);
    if (K::pregate) value *= Scalar<S>::widen(static_cast<const S*>(args.pregate)[at]);
    return value * (A(1) / A(i64(1) << args.scale));
}

template <class K>
STRIATE_DEVICE void fft_produce(const FftArgs& args, const FftLine& line, int p, typename K::A value) {
    using D = typename K::D;
    const int u = line.lowest + p;
    i64 at;
    if (u < line.begin || u >= line.end || !fft_place<K>(args, args.out, u, at)) return;
    at += line.sample * args.out.sample + line.channel * args.out.channel;
    if (K::bias) value += static_cast<const typename K::A*>(args.bias)[line.channel];
    value = activated<K::activation>(value);
    if (K::postgate) value *= Scalar<D>::widen(static_cast<const D*>(args.postgate)[at]);
    static_cast<D*>(args.to)[at] = Scalar<D>::narrow(value);
}

template <class A>
STRIATE_DEVICE void fft_split(Complex<A>& a, Complex<A>& b, Complex<A> w) {
    const Complex<A> x = a, y = b;
    a = {x.re + w.re * y.re - w.im * y.im, x.im + w.re * y.im + w.im * y.re};
    b = {x.re - w.re * y.re + w.im * y.im, x.im - w.re * y.im - w.im * y.re};
}

// Undoes it, times two.
template <class A>
STRIATE_DEVICE void fft_merge(Complex<A>& a, Complex<A>& b, Complex<A> w) {
    const A re = a.re - b.re, im = a.im - b.im;
    a = {a.re + b.re, a.im + b.im};
    b = {re * w.re + im * w.im, im * w.re - re * w.im};
}

// The root of block `block` of a level whose first block has the root w.
template <class A>
STRIATE_DEVICE Complex<A> fft_root(Complex<A> w, int block) {
    constexpr double turns[4][2] = {{1, 0},
                                    {0.70710678118654752440, 0.70710678118654752440},
                                    {0.92387953251128675613, 0.38268343236508977173},
                                    {0.38268343236508977173, 0.92387953251128675613}};
    if (block > 1) {
        const A re = A(turns[block / 2][0]), im = A(turns[block / 2][1]);
        w = {w.re * re - w.im * im, w.re * im + w.im * re};
    }
    return block % 2 ? Complex<A>{-w.im, w.re} : w;
}

// Root number `level` of a block of the table.
template <class A>
STRIATE_DEVICE Complex<A> fft_entry(const void* table, int block, int level) {
    const Pack<A, 2> pack = load<2>(static_cast<const A*>(table) + (4 * i64(block) + level) * 2);
    return {pack.at[0], pack.at[1]};
}

// A level of one block of coefficients, of which the thread holds those at n, n + 16 / radix, ...
template <int radix, int level, bool back, class A>
STRIATE_DEVICE void fft_level(Complex<A> (&v)[16], int n, const Complex<A>& root) {
    constexpr int half = radix >> (level + 1), blocks = 1 << level, step = 16 / radix;
#pragma unroll
    for (int block = 0; block < blocks; ++block) {
        const Complex<A> w = fft_root(root, block);
#pragma unroll
        for (int p = 0; p < half; ++p) {
            Complex<A>& a = v[n + step * (2 * half * block + p)];
            Complex<A>& b = v[n + step * (2 * half * block + p + half)];
            if (back)
                fft_merge(a, b, w);
            else
                fft_split(a, b, w);
        }
    }
}

// All its levels, from the widest halves to neighbours or back.
template <int radix, bool back, int level = 0, class A>
STRIATE_DEVICE void fft_node(Complex<A> (&v)[16], int n, const void* table, int entry) {
    if constexpr (radix >> level > 1) {
        if (!back) fft_level<radix, level, back>(v, n, fft_entry<A>(table, entry, level));
        fft_node<radix, back, level + 1>(v, n, table, entry);
        if (back) fft_level<radix, level, back>(v, n, fft_entry<A>(table, entry, level));
    }
}

// The first of a thread's numbers, where they are `sub` apart.
template <int sub>
STRIATE_DEVICE int fft_first(int thread) {
    return thread / sub * 16 * sub + thread % sub;
}

// Where a number lies in shared memory, so that neither threads that are 16 numbers apart nor those next to each
// other meet in a bank. The places of two numbers without a common bit add up, so that a thread has one place, and
// constants, to reckon with.
STRIATE_DEVICE constexpr int fft_spot(int number) { return number + (number >> 4); }

// The same number, of which the compiler does not know that: what follows from it is worked out again where it is
// needed, and not kept in registers until then.
STRIATE_DEVICE int fft_anew(int number) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(number));
#endif
    return number;
}

// One half of the numbers, real or imaginary parts, `sub` apart, to shared memory or from there.
template <int sub, bool load, class A>
STRIATE_DEVICE void fft_move(A* buffer, Complex<A> (&v)[16], int thread, A Complex<A>::*half) {
    A* const first = buffer + fft_spot(fft_first<sub>(fft_anew(thread)));
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        A& spot = first[fft_spot(e * sub)];
        if (load)
            v[e].*half = spot;
        else
            spot = v[e].*half;
    }
}

// From numbers `from` apart to numbers `to` apart.
template <class K, int from, int to, class A>
STRIATE_DEVICE void fft_exchange(A* buffer, Complex<A> (&v)[16], int thread) {
    constexpr int second = K::split ? 0 : fft_spot(1 << K::bits);
    sync_block();
    fft_move<from, false>(buffer, v, thread, &Complex<A>::re);
    if (!K::split) fft_move<from, false>(buffer + second, v, thread, &Complex<A>::im);
    sync_block();
    fft_move<to, true>(buffer, v, thread, &Complex<A>::re);
    if (K::split) {
        sync_block();
        fft_move<from, false>(buffer, v, thread, &Complex<A>::im);
        sync_block();
    }
    fft_move<to, true>(buffer + second, v, thread, &Complex<A>::im);
}

// A thread of a line, or of part `part` of a long one.
template <class A>
struct FftThread {
    A* buffer;
    const void* roots;
    int thread, part;
};

// The passes after the first: numbers `sub` apart, before that `last` apart. `before` blocks stand in the table
// before those of this pass.
template <class K, int sub, int last, int before, bool back, class A>
STRIATE_DEVICE void fft_passes(const FftThread<A>& self, Complex<A> (&v)[16]) {
    if constexpr (sub > 0) {
        constexpr int blocks = (1 << K::bits) / (16 * sub), next = before + (blocks << 4 * K::tops);
        if (back) fft_passes<K, sub / 16, sub, next, back>(self, v);
        if (!back) fft_exchange<K, last, sub>(self.buffer, v, self.thread);
        fft_node<16, back>(v, 0, self.roots, before + self.part * blocks + self.thread / sub);
        if (back) fft_exchange<K, sub, last>(self.buffer, v, self.thread);
        if (!back) fft_passes<K, sub / 16, sub, next, back>(self, v);
    }
}

// Blocks that stand in the table before those of the first pass after `tops` passes of 16.
STRIATE_DEVICE constexpr int fft_before(int tops) { return ((1 << 4 * tops) - 1) / 15; }

// The first pass, whose block is the whole line or part.
template <class K, bool back, class A>
STRIATE_DEVICE void fft_first_pass(const FftThread<A>& self, Complex<A> (&v)[16]) {
    constexpr int radix = K::bits % 4 == 0 ? 16 : 1 << K::bits % 4;
#pragma unroll
    for (int n = 0; n < 16 / radix; ++n) fft_node<radix, back>(v, n, self.roots, fft_before(K::tops) + self.part);
}

template <class K, bool back, class A>
STRIATE_DEVICE void fft_transform(const FftThread<A>& self, Complex<A> (&v)[16]) {
    constexpr int threads = 1 << (K::bits - 4), radix = K::bits % 4 == 0 ? 16 : 1 << K::bits % 4;
    if (!back) fft_first_pass<K, back>(self, v);
    fft_passes<K, threads / radix, threads, fft_before(K::tops) + (1 << 4 * K::tops), back>(self, v);
    if (back) fft_first_pass<K, back>(self, v);
}

// What a thread has: a part of a line, if there is one for it.
struct FftShare {
    i64 number;  // of the part, among those of all lines
    i64 line;
    int part, thread;
    bool real;
};

template <class K>
STRIATE_DEVICE FftShare fft_share(const FftArgs& args, int thread) {
    constexpr int threads = 1 << (K::bits - 4), parts = 1 << 4 * K::tops;
    const u32 slot = K::lines == 1 ? 0 : u32(thread / threads), number = blockIdx.x * u32(K::lines) + slot;
    return {number, number / parts, int(number % parts), K::lines == 1 ? thread : thread % threads,
            number / parts < args.lines};
}

template <class K, class A>
STRIATE_DEVICE const Complex<A>* fft_values(const FftArgs& args, const FftShare& share, i64 kernel) {
    constexpr i64 parts = 1 << 4 * K::tops;
    return static_cast<const Complex<A>*>(args.values) + ((kernel * parts + share.part) << K::bits) + share.thread;
}

template <class K, class A>
STRIATE_DEVICE void fft_read(const FftArgs& args, const FftShare& share, Complex<A> (&v)[16]) {
    constexpr int length = 1 << K::bits, threads = length / 16;
    const FftLine line = fft_line(args, share.real ? share.line : 0);
    const Complex<A>* from = static_cast<const Complex<A>*>(args.space) + (share.number << K::bits) + share.thread;
    if (K::source == 2) from = fft_values<K, A>(args, share, share.line);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int p = share.thread + e * threads;
        v[e] = {0, 0};
        if (K::source == 0 && share.real)
            v[e] = {fft_coefficient<K>(args, line, p), fft_coefficient<K>(args, line, p + length)};
        if (K::source > 0 && share.real) v[e] = from[e * threads];
    }
    if (K::source < 2 || !share.real) return;
    for (i64 sum = 1; sum < args.sums; ++sum) {
#pragma unroll
        for (int e = 0; e < 16; ++e) {
            const Complex<A> more = from[sum * args.apart + e * threads];
            v[e] = {v[e].re + more.re, v[e].im + more.im};
        }
    }
}

template <class K, class A>
STRIATE_DEVICE void fft_multiply(const FftArgs& args, const FftShare& share, Complex<A> (&v)[16]) {
    const u32 line = share.real ? u32(share.line) : 0, kernel = u32(args.first + line) / u32(args.sharing);
    const Complex<A>* const values = fft_values<K, A>(args, share, kernel - u32(args.kernel));
#pragma unroll
    for (int some = 0; some < 16; some += 8) {
        // Keeps loads where they are: there are no registers for all of them.
        sync_warp();
#pragma unroll
        for (int e = some; e < some + 8; ++e) {
            const Complex<A> x = v[e], k = share.real ? values[e << (K::bits - 4)] : Complex<A>{0, 0};
            v[e] = {x.re * k.re - x.im * k.im, x.re * k.im + x.im * k.re};
        }
    }
    sync_warp();
}

template <class K, class A>
STRIATE_DEVICE void fft_write(const FftArgs& args, const FftShare& share, const Complex<A> (&v)[16]) {
    constexpr int length = 1 << K::bits, threads = length / 16;
    if (!share.real) return;
    const FftLine line = fft_line(args, share.line);
    Complex<A>* const to = static_cast<Complex<A>*>(args.space) + (share.number << K::bits) + share.thread;
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int p = share.thread + e * threads;
        if (K::target == 0) {
            to[e * threads] = v[e];
        } else {
            fft_produce<K>(args, line, p, v[e].re);
            fft_produce<K>(args, line, p + length, v[e].im);
        }
    }
}

// Lines, or parts of them, that a block holds. K: A the accumulator, S and D the types of `from` and `to`;
//   bits                 2^bits numbers in a line or part
//   tops                 passes that cut lines into parts before
//   lines                of a block
//   split                whether real and imaginary parts are exchanged one after the other
//   source               0: coefficients of `from`; 1: numbers of `space`; 2: sums of spectra
//   forward, multiply, inverse   what is done
//   target               0: `space`; 1: coefficients of `to`
//   rank, periodic       of the signals
//   pregate, postgate, bias, activation   what is done to coefficients on their way in and out
template <class K>
STRIATE_DEVICE void fft_lines(const FftArgs& args) {
    using A = typename K::A;
    STRIATE_SHARED_BYTES(raw);
    const auto share = [&] { return fft_share<K>(args, fft_anew(int(threadIdx.x))); };
    const int slot = K::lines == 1 ? 0 : int(threadIdx.x) >> (K::bits - 4);
    const FftShare own = fft_share<K>(args, int(threadIdx.x));
    const FftThread<A> self = {reinterpret_cast<A*>(raw) + slot * (K::split ? 1 : 2) * fft_spot(1 << K::bits),
                               args.roots, own.thread, own.part};
    Complex<A> v[16];
    fft_read<K>(args, share(), v);
    if (K::forward) fft_transform<K, false>(self, v);
    if (K::multiply) fft_multiply<K>(args, share(), v);
    if (K::inverse) fft_transform<K, true>(self, v);
    fft_write<K>(args, share(), v);
}

// One pass over lines of 2^total numbers in global memory, the K::level-th of those that cut into 16 parts. The first
// reads coefficients, and on the way back writes them, where K::outer says so.
template <class K>
STRIATE_DEVICE void fft_top(const FftArgs& args) {
    using A = typename K::A;
    constexpr i64 length = i64(1) << K::total, sub = length >> 4 * (K::level + 1);
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    const i64 index = item / (length / 16), node = item % (length / 16);
    if (index >= args.lines) return;
    const FftLine line = fft_line(args, index);
    const i64 block = node / sub, first = block * 16 * sub + node % sub;
    Complex<A>* const own = static_cast<Complex<A>*>(args.space) + index * length + first;
    Complex<A> v[16];
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int p = int(first + e * sub);
        if (K::outer && !K::back)
            v[e] = {fft_coefficient<K>(args, line, p), fft_coefficient<K>(args, line, p + int(length))};
        else
            v[e] = own[e * sub];
    }
    fft_node<16, K::back != 0>(v, 0, args.roots, fft_before(K::level) + int(block));
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int p = int(first + e * sub);
        if (K::outer && K::back) {
            fft_produce<K>(args, line, p, v[e].re);
            fft_produce<K>(args, line, p + int(length), v[e].im);
        } else {
            own[e * sub] = v[e];
        }
    }
}

struct FftSumArgs {
    const void *gradients, *inputs;  // spectra of the lines
    void* sums;
    i64 lines, first;           // as above
    i64 sharing, sums_of;       // lines of a kernel, and sums that they are shared out to
    i64 kernel, some, kernels;  // the first kernel of these lines, how many they are, and how many there are in all
};

// Adds the products of gradients and inputs to the sums of their kernels: every sums_of-th line to each, in order.
template <class K>
STRIATE_DEVICE void fft_sum(const FftSumArgs& args) {
    using A = typename K::A;
    constexpr i64 length = i64(1) << K::total;
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x, p = item % length;
    const i64 which = item / length % args.sums_of, kernel = args.kernel + item / length / args.sums_of;
    if (kernel >= args.kernel + args.some) return;
    const i64 whole = kernel * args.sharing, begin = most(whole, args.first);
    const i64 end = least(whole + args.sharing, args.first + args.lines);
    Complex<A>* const place = static_cast<Complex<A>*>(args.sums) + (which * args.kernels + kernel) * length + p;
    Complex<A> sum = whole >= args.first ? Complex<A>{0, 0} : *place;
    const i64 ahead = (which - (begin - whole) % args.sums_of + args.sums_of) % args.sums_of;
    for (i64 line = begin + ahead; line < end; line += args.sums_of) {
        const i64 at = (line - args.first) * length + p;
        const Complex<A> g = static_cast<const Complex<A>*>(args.gradients)[at];
        const Complex<A> x = static_cast<const Complex<A>*>(args.inputs)[at];
        sum = {sum.re + g.re * x.re + g.im * x.im, sum.im + g.im * x.re - g.re * x.im};
    }
    *place = sum;
}

#ifdef __CUDACC__
STRIATE_DEVICE void sine_cosine(double turns, double& sine, double& cosine) { sincospi(2 * turns, &sine, &cosine); }
#else
STRIATE_DEVICE void sine_cosine(double turns, double& sine, double& cosine) {
    const long double angle = 6.283185307179586476925286766559L * turns;
    sine = double(sinl(angle)), cosine = double(cosl(angle));
}
#endif

struct FftRootArgs {
    void* roots;
    i64 blocks;
};

// The table of roots for `tops` passes of 16, one of what is left, and passes of 16.
template <class K>
STRIATE_DEVICE void fft_roots(const FftRootArgs& args) {
    using A = typename K::A;
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= args.blocks) return;
    i64 block = item;
    int level = 0;
    for (int pass = 0; block >> level != 0; ++pass) {
        block -= i64(1) << level;
        level += pass == K::tops && K::bits % 4 != 0 ? K::bits % 4 : 4;
    }
    i64 mirrored = 0;
    for (int bit = 0; bit < level; ++bit) mirrored |= (block >> bit & 1) << (level - 1 - bit);
    // (2^-l / 8 + mirrored / 2^l / 2) turns, exact.
    double turns = double(1 + 4 * mirrored) / double(i64(8) << level);
    for (int k = 0; k < 4; ++k, turns /= 2) {
        double sine, cosine;
        sine_cosine(turns, sine, cosine);
        static_cast<Complex<A>*>(args.roots)[4 * item + k] = {A(cosine), A(sine)};
    }
}

}  // namespace striate
