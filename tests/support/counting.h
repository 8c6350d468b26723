// Counts what a kernel does on groups of one person: included before the code of each CPU module, in place of lanes.h.
//
// Operations: + - * / and roots of lanes are one each; comparisons and selections are none. Numbers that are the same for
// all people are not counted: neither operations nor tables. Bytes: each number of a person, or of scratch, that a
// launch reads before it has written it is read once from memory, and each that it writes is written once: what moves
// if a launch's numbers of one person stay in the caches. Asked for: all reads and writes.
#pragma once
#include "@LANES@"

namespace wp {

typedef vec_t<1, float> one_lane;

struct Counts {
    unsigned long long flops, asked, read, written, lost;
    unsigned long long touched[1 << 20];  // address, and in bit 0 whether it was written; a table with linear probing
};

inline Counts& counts() { return *(Counts*)@ADDRESS@ULL; }

inline void count_touch(const void* address, bool write)
{
    Counts& c = counts();
    const unsigned long long key = (unsigned long long)address, mask = (1 << 20) - 1;
    c.asked += 4;
    unsigned long long at = (key >> 2) * 0x9E3779B97F4A7C15ULL >> 44;
    for (int tries = 0; tries < 4096; ++tries, at = (at + 1) & mask) {
        if (c.touched[at] == 0) {
            c.touched[at] = key | (write ? 1 : 0);
            if (write) c.written += 4; else c.read += 4;
            return;
        }
        if ((c.touched[at] & ~3ULL) == key) {
            if (write && !(c.touched[at] & 1)) {
                c.touched[at] |= 1;
                c.written += 4;
            }
            return;
        }
    }
    ++c.lost;
}

inline one_lane load(one_lane* address) { count_touch(address, false); return *address; }
inline void array_store(const array_t<one_lane>& x, int i, one_lane v) { one_lane* p = address(x, i); count_touch(p, true); *p = v; }
inline void array_store(const array_t<one_lane>& x, int i, int j, one_lane v) { one_lane* p = address(x, i, j); count_touch(p, true); *p = v; }
inline void array_store(const array_t<one_lane>& x, int i, int j, int k, one_lane v) { one_lane* p = address(x, i, j, k); count_touch(p, true); *p = v; }
inline void array_store(const array_t<one_lane>& x, int i, int j, int k, int l, one_lane v) { one_lane* p = address(x, i, j, k, l); count_touch(p, true); *p = v; }

#define COUNTED(EXPRESSION) { ++counts().flops; one_lane r; r[0] = EXPRESSION; return r; }
inline one_lane add(one_lane a, one_lane b) COUNTED(a[0] + b[0])
inline one_lane sub(one_lane a, one_lane b) COUNTED(a[0] - b[0])
inline one_lane cw_mul(one_lane a, one_lane b) COUNTED(a[0] * b[0])
inline one_lane cw_div(one_lane a, one_lane b) COUNTED(a[0] / b[0])
inline one_lane mul(one_lane a, float s) COUNTED(a[0] * s)
inline one_lane mul(float s, one_lane a) COUNTED(s * a[0])
inline one_lane div(one_lane a, float s) COUNTED(a[0] / s)
inline one_lane lanes_sqrt(const one_lane& a) COUNTED(__builtin_sqrtf(a[0]))
inline one_lane lanes_fma(float s, const one_lane& a, const one_lane& b) { counts().flops += 2; one_lane r; r[0] = __builtin_fmaf(s, a[0], b[0]); return r; }
#undef COUNTED

}  // namespace wp
