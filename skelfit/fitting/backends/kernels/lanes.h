// Lane vectors of 4, 8 and 16 floats as vector registers, for CPUs; included before the code of each CPU module.
//
// Warp's vectors are arrays that its operators walk through element by element, and compilers need minutes to make
// vector instructions of a kernel full of them. These overloads, preferred to Warp's templates, say it directly: a
// kernel then compiles twenty times faster, and runs faster.
#pragma once
#define SKELFIT_LANES 1
#define WP_NO_CRT
#define WP_NO_BFLOAT16
#define WP_TILE_BLOCK_DIM 1
#include "builtin.h"
// A module says how many threads share a block after this: `block_dim` has to wait for it.
#undef WP_TILE_BLOCK_DIM
#define block_dim() threads_of_block<WP_TILE_BLOCK_DIM>()

namespace wp {

template <int N> inline int threads_of_block() { return N; }

template <unsigned N> struct lanes_of {
    typedef float type __attribute__((vector_size(4 * N), aligned(4)));
};

template <unsigned N> inline typename lanes_of<N>::type lanes(const vec_t<N, float>& a)
{
    typename lanes_of<N>::type r;
    __builtin_memcpy(&r, &a, sizeof(r));
    return r;
}

template <unsigned N> inline vec_t<N, float> group(typename lanes_of<N>::type a)
{
    vec_t<N, float> r;
    __builtin_memcpy(&r, &a, sizeof(r));
    return r;
}

template <unsigned N> inline vec_t<N, float> lanes_choose(const vec_t<N, float>& c, const vec_t<N, float>& a, const vec_t<N, float>& b)
{
    return group<N>(lanes(c) > 0.0f ? lanes(a) : lanes(b));
}

template <unsigned N> inline vec_t<N, float> lanes_exceeds(const vec_t<N, float>& a, const vec_t<N, float>& b)
{
    typename lanes_of<N>::type zero = lanes(a) - lanes(a), one = zero;
    for (unsigned k = 0; k < N; ++k) { zero[k] = 0.0f; one[k] = 1.0f; }
    return group<N>(lanes(a) > lanes(b) ? one : zero);
}

// s a + b, rounded once: said so, as compilers are not to choose which products they fuse.
template <unsigned N> inline vec_t<N, float> lanes_fma(float s, const vec_t<N, float>& a, const vec_t<N, float>& b)
{
    typename lanes_of<N>::type x = lanes(a);
    for (unsigned k = 0; k < N; ++k) x[k] = s;
    return group<N>(__builtin_elementwise_fma(x, lanes(a), lanes(b)));
}

template <unsigned N> inline vec_t<N, float> lanes_sqrt(const vec_t<N, float>& a)
{
    typename lanes_of<N>::type x = lanes(a);
    for (unsigned k = 0; k < N; ++k) x[k] = __builtin_sqrtf(x[k]);
    return group<N>(x);
}

template <unsigned N> inline vec_t<N, float> lanes_round(const vec_t<N, float>& a)
{
    typename lanes_of<N>::type x = lanes(a);
    for (unsigned k = 0; k < N; ++k) x[k] = __builtin_roundevenf(x[k]);
    return group<N>(x);
}

#define SKELFIT_OPERATORS(N)                                                                                          \
    typedef vec_t<N, float> group_##N;                                                                                \
    inline group_##N add(group_##N a, group_##N b) { return group<N>(lanes(a) + lanes(b)); }                          \
    inline group_##N sub(group_##N a, group_##N b) { return group<N>(lanes(a) - lanes(b)); }                          \
    inline group_##N neg(group_##N a) { return group<N>(-lanes(a)); }                                                 \
    inline group_##N cw_mul(group_##N a, group_##N b) { return group<N>(lanes(a) * lanes(b)); }                       \
    inline group_##N cw_div(group_##N a, group_##N b) { return group<N>(lanes(a) / lanes(b)); }                       \
    inline group_##N mul(group_##N a, float s) { return group<N>(lanes(a) * s); }                                     \
    inline group_##N mul(float s, group_##N a) { return group<N>(s * lanes(a)); }                                     \
    inline group_##N div(group_##N a, float s) { return group<N>(lanes(a) / s); }                                     \
    inline group_##N min(group_##N a, group_##N b) { return group<N>(lanes(a) < lanes(b) ? lanes(a) : lanes(b)); }    \
    inline group_##N max(group_##N a, group_##N b) { return group<N>(lanes(a) > lanes(b) ? lanes(a) : lanes(b)); }    \
    inline group_##N abs(group_##N a) { return max(a, neg(a)); }

SKELFIT_OPERATORS(4)
SKELFIT_OPERATORS(8)
SKELFIT_OPERATORS(16)

}  // namespace wp
