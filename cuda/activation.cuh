// Activations by number, as the host passes them: 0 none, 1 relu, 2 silu, 3 gelu.

#pragma once

#include "scalar.cuh"

namespace striate {

STRIATE_FN float error_function(float x) { return erff(x); }
STRIATE_FN double error_function(double x) { return erf(x); }

template <int which, class A>
STRIATE_FN A activated(A x) {
    if constexpr (which == 1) return x > A(0) ? x : x == x ? A(0) : x;
    if constexpr (which == 2) return x / (A(1) + exponential(-x));
    if constexpr (which == 3) return A(0.5) * x * (A(1) + error_function(x * A(0.70710678118654752440)));
    return x;
}

}  // namespace striate
