// Windows of several planes between global and shared memory, for kernels that keep activations in their storage type.
//
// A window is `images` x `lines` x `columns`; a column is an element, neighbours are neighbours in memory. It starts at
// line0, column0 of planes that end at `line_limit` and `column_limit`: what lies outside is zero when it is loaded and
// skipped when it is stored. Pieces of VEC elements move at once; VEC divides column0, columns, column_limit and every
// step, and the addresses are aligned to it, so that a piece is inside or outside as a whole.

#pragma once

#include "tile.cuh"

namespace striate {

template <class T>
struct Window {
    T* global;
    i64 image_step, line_step;
    int line0, line_limit, column0, column_limit;
    int images, lines, columns;
};

// Where a line of a window begins in shared memory.
struct Place {
    int image_step, line_step;
};

// The largest of 8, 4, 2, 1 that divides `given` and to which the address is aligned. `given` keeps it to 16 bytes.
template <class T>
STRIATE_DEVICE int aligned_piece(const void* address, i64 given) {
    const u64 bits = (reinterpret_cast<u64>(address) / sizeof(T)) | u64(given) | 8u;
    return int(bits & (~bits + 1));
}

// Calls visit(image, line, piece) for the pieces that fall to this thread; neighbouring threads take neighbours.
template <class Visit>
STRIATE_DEVICE void each_piece(int images, int lines, int pieces, Visit visit) {
    int line = int(threadIdx.x) / pieces, piece = int(threadIdx.x) % pieces, image = 0;
    const int line_step = int(blockDim.x) / pieces, piece_step = int(blockDim.x) % pieces;
    for (;;) {
        while (line >= lines) {
            line -= lines;
            if (++image >= images) return;
        }
        visit(image, line, piece);
        line += line_step, piece += piece_step;
        if (piece >= pieces) piece -= pieces, ++line;
    }
}

template <int VEC, class T>
STRIATE_DEVICE void load_pieces(const Window<const T>& window, T* shared, Place place) {
    each_piece(window.images, window.lines, window.columns / VEC, [&](int image, int line, int piece) {
        const int i = window.line0 + line, j = window.column0 + piece * VEC;
        const bool inside = unsigned(i) < unsigned(window.line_limit) && unsigned(j) < unsigned(window.column_limit);
        // An address that is not read must still be one of the tensor.
        const T* from = window.global + (inside ? image * window.image_step + i * window.line_step + j : 0);
        T* to = shared + image * place.image_step + line * place.line_step + piece * VEC;
        if constexpr (VEC * sizeof(T) >= 4)
            cp_async<VEC * sizeof(T)>(to, from, inside ? VEC * sizeof(T) : 0);
        else
            *to = inside ? *from : T{};
    });
}

// Calls move(Piece<VEC>) for `vec` elements at once.
template <int VEC>
struct Piece {
    static constexpr int size = VEC;
};
template <class T, class Move>
STRIATE_DEVICE void by_pieces(int vec, Move move) {
    if constexpr (sizeof(T) == 2)
        if (vec == 8) return move(Piece<8>{});
    if (vec == 4) return move(Piece<4>{});
    if (vec == 2) return move(Piece<2>{});
    move(Piece<1>{});
}

// Starts to load; cp_async_commit, cp_async_wait and sync_block are the caller's.
template <class T>
STRIATE_DEVICE void load_window(const Window<const T>& window, T* shared, Place place, int vec) {
    by_pieces<T>(vec, [&](auto piece) { load_pieces<decltype(piece)::size>(window, shared, place); });
}

template <int VEC, class T>
STRIATE_DEVICE void store_pieces(const Window<T>& window, const T* shared, Place place) {
    each_piece(window.images, window.lines, window.columns / VEC, [&](int image, int line, int piece) {
        const int i = window.line0 + line, j = window.column0 + piece * VEC;
        if (i >= window.line_limit || j >= window.column_limit) return;
        store(window.global + image * window.image_step + i * window.line_step + j,
              load<VEC>(shared + image * place.image_step + line * place.line_step + piece * VEC));
    });
}

template <class T>
STRIATE_DEVICE void store_window(const Window<T>& window, const T* shared, Place place, int vec) {
    by_pieces<T>(vec, [&](auto piece) { store_pieces<decltype(piece)::size>(window, shared, place); });
}

// Rounds numbers in shared memory that all threads have to what tensor cores look at, between barriers of the block;
// half types are that already.
template <class T>
STRIATE_DEVICE void round_to_tf32(T* shared, int count) {
    if constexpr (sizeof(T) == 4) {
        for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) shared[i] = float_of(to_tf32(shared[i]));
        sync_block();
    }
}

// Loads a window with lines and columns exchanged: element (line, column) goes to column * place.line_step + line. Two
// lines at a time, so that a thread stores whole words; neighbouring threads take neighbouring lines and meet
// different banks. The number of lines is even, and so are the steps in shared memory.
template <int VEC, class T>
STRIATE_DEVICE void load_pieces_turned(const Window<const T>& window, T* shared, Place place) {
    const int pieces = window.columns / VEC, pairs = window.lines / 2;
    each_piece(window.images, pieces, pairs, [&](int image, int piece, int pair) {
        const int j = window.column0 + piece * VEC;
        Pack<T, VEC> rows[2];
        for (int e = 0; e < 2; ++e) {
            const int i = window.line0 + 2 * pair + e;
            rows[e] = Pack<T, VEC>{};
            if (unsigned(i) < unsigned(window.line_limit) && unsigned(j) < unsigned(window.column_limit))
                rows[e] = load<VEC>(window.global + image * window.image_step + i * window.line_step + j);
        }
        T* to = shared + image * place.image_step + piece * VEC * place.line_step + 2 * pair;
#pragma unroll
        for (int v = 0; v < VEC; ++v) store(to + v * place.line_step, Pack<T, 2>{{rows[0].at[v], rows[1].at[v]}});
    });
}

template <class T>
STRIATE_DEVICE void load_window_turned(const Window<const T>& window, T* shared, Place place, int vec) {
    by_pieces<T>(vec, [&](auto piece) { load_pieces_turned<decltype(piece)::size>(window, shared, place); });
}

}  // namespace striate
