/* The torch-free C interface of striate. The library is the extension module striate/_core.*; load it with dlopen.
 *
 * A problem line names one convolution pass:
 *     conv <pass> <dtype>[:<weight dtype>] <layout> <device> n<N> g<G> ci<c> co<c> i<..> k<..> s<..> d<..> p<lo>+<hi>..
 * pass = fwd | dx | dw, dtype = f32 f64 bf16 f16, layout = nchw | nhwc for every rank, device = cpu, 1 to 3 axes joined
 * by x; ci and co count channels per group, i is the input size of the convolution, pads are signed, for example
 *     conv fwd bf16:f32 nhwc cpu n8 g96 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3
 * A final word `wide` makes a dw pass of bf16 or f16 write f32.
 *
 * Functions may be called from any thread. They answer 0 for success, 1 for wrong arguments, 2 for a failure inside.
 */
#ifndef STRIATE_H
#define STRIATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version, a static string. */
const char *striate_version(void);

/* Runs one pass on dense tensors in the line's layout, weights always contiguous [g*co, ci, k...]:
 *     fwd: first = input [n, g*ci, i...], second = weight, out [n, g*co, o...]
 *     dx:  first = output gradient [n, g*co, o...], second = weight, out [n, g*ci, i...]
 *     dw:  first = output gradient, second = input, out = weight gradient [g*co, ci, k...]
 * bias, in the weight's type with one entry for each channel of out, may be NULL and must be for dw. At most `workers`
 * threads work, the caller's included; the result does not depend on their number. On failure the reason is written to
 * `error` (at most error_len bytes, terminated), which may be NULL. */
int striate_conv(const char *problem_line, const void *first, const void *second, const void *bias, void *out,
                 int workers, char *error, size_t error_len);

/* Writes the name of the kernel row that the line runs on, then one line "row: reason" for each row that refused, or
 * the reason of a failure. */
int striate_explain(const char *problem_line, char *text, size_t text_len);

/* The pairs of positions that meet at position p of the tensor that a pass (0 fwd, 1 dx, 2 dw) produces along
 * axis = {input, kernel, stride, dilation, pad_lo, pad_hi}: walk = {a0, a_step, b0, b_step, len} means positions
 * a0 + n*a_step of the first operand and b0 + n*b_step of the second for 0 <= n < len. */
int striate_axis_walk(int pass, const int64_t axis[6], int64_t p, int64_t walk[5]);

#ifdef __cplusplus
}
#endif

#endif
