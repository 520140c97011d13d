/* Batch norm with fixed statistics, and what stands around it in a network, in one pass over channels-last maps.
 *
 * A map is rows of C channels: G groups of images, one after another, of `rows` rows (pixels of images) each. Values are
 * float, or the upper half of one (bfloat16); sums are float over a tile of rows, and double over the tiles, which are the
 * same whatever the number of threads. What is summed are distances from a tile's own first rows, however far from the
 * norm's mean these are: squares of large numbers would leave nothing of a small variance.
 *
 * Rows are taken `span` at a time, so that they fill whole vectors: what belongs to a channel lies there `span` times.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Values that are worked on at once: what one register holds. Twice as many are taken apart by the compiler, ten times slower. */
#if defined __AVX512F__
#define LANES 16
#elif defined __AVX__
#define LANES 8
#else
#define LANES 4
#endif
#define WIDE 4    /* vectors whose sums are held in registers */
#define TILE 256  /* spans of rows that one sum runs over */
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 4")

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

/* What a pass works with: pointers may be NULL where a pass has no such map. */
struct norm {
    int64_t groups, rows, channels, threads;
    const float *mean, *scale, *shift; /* (C,): z = (y - mean) * scale + shift */
    float ceiling;                     /* of the rectifier behind it; 0: there is none */
    const void *y, *skip;              /* what comes in, and what is added before the rectifier */
    void *z;                           /* what goes out: written forward, read backward where there is a skip */
    float *moments;                    /* (2, G, C) written forward: mean and biased variance of y */
    const void *by_z;                  /* the gradient of z */
    const float *by_y;                 /* (2, G, C) backward: what is added to y's gradient, and that by (y - mean) */
    void *to_y, *to_skip;              /* gradients, written backward */
};

INLINE floats fetch(const void *map, int64_t at, int count, int half)
{
    if (half) {
        halves read = {0};
        memcpy(&read, (const uint16_t *)map + at, 2 * count);
        return (floats)(__builtin_convertvector(read, words) << 16);
    }
    floats read = {0};
    memcpy(&read, (const float *)map + at, 4 * count);
    return read;
}

INLINE void store(void *map, int64_t at, floats value, int count, int half)
{
    if (half) {
        words bits = (words)value;
        halves written = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves); /* to the nearest, even */
        memcpy((uint16_t *)map + at, &written, 2 * count);
    } else
        memcpy((float *)map + at, &value, 4 * count);
}

/* `wide` vectors of floats. */
INLINE void fetch_all(floats *values, const float *from, int64_t at, int wide)
{
    for (int k = 0; k < wide; k++) values[k] = fetch(from, at + k * LANES, LANES, 0);
}

INLINE void add_to(float *sums, int64_t at, floats value, int count)
{
    store(sums, at, fetch(sums, at, count, 0) + value, count, 0);
}

INLINE floats chosen(ints mask, floats value) { return (floats)(mask & (ints)value); }

/* What a pass does beside the norm. It is known when the pass is compiled, so that nothing is asked within its loops. */
enum { BARE, RECTIFIED, CAPPED };
struct kind {
    int backward, half, added, rectifier;
};

/* Not a number stays what it is. */
INLINE floats rectified(floats value, float ceiling, int rectifier)
{
    if (rectifier == BARE) return value;
    floats positive = chosen(~(value <= 0), value);
    if (rectifier == RECTIFIED) return positive;
    ints over = positive > ceiling;
    return chosen(~over, positive) + chosen(over, (floats){0} + ceiling);
}

/* `wide` vectors of some rows, from `at` on, through the norm, and the sums of y - centre and of its square. */
INLINE void forward_strip(const struct norm *n, struct kind is, const float *own, int64_t width, int64_t column, int64_t at,
                          int64_t steps, int wide, int count, float *sums)
{
    const void *restrict y = n->y, *restrict skip = n->skip;
    void *restrict z = n->z;
    const float ceiling = n->ceiling;
    floats mean[WIDE], scale[WIDE], shift[WIDE], centre[WIDE], first[WIDE] = {0}, second[WIDE] = {0};
    fetch_all(mean, own, column, wide);
    fetch_all(scale, own, width + column, wide);
    fetch_all(shift, own, 2 * width + column, wide);
    fetch_all(centre, sums ? sums : own, column, wide);
    for (int64_t step = 0; step < steps; step++, at += width)
        UNROLLED for (int k = 0; k < wide; k++) {
            int64_t here = at + column + k * LANES;
            floats given = fetch(y, here, count, is.half), off = given - centre[k];
            first[k] += off;
            second[k] += off * off;
            floats value = (given - mean[k]) * scale[k] + shift[k];
            if (is.added) value += fetch(skip, here, count, is.half);
            store(z, here, rectified(value, ceiling, is.rectifier), count, is.half);
        }
    for (int k = 0; sums && k < wide; k++) {
        add_to(sums, width + column + k * LANES, first[k], count);
        add_to(sums, 2 * width + column + k * LANES, second[k], count);
    }
}

/* Where something was added, what came out tells what the rectifier let through; else what came in does. */
INLINE void backward_strip(const struct norm *n, struct kind is, const float *own, int64_t width, int64_t column, int64_t at,
                           int64_t steps, int wide, int count)
{
    const void *restrict y = n->y, *restrict z = n->z, *restrict by_z = n->by_z;
    void *restrict to_y = n->to_y, *restrict to_skip = n->to_skip;
    const float ceiling = n->ceiling;
    floats mean[WIDE], scale[WIDE], shift[WIDE], add[WIDE], slope[WIDE];
    fetch_all(mean, own, column, wide);
    fetch_all(scale, own, width + column, wide);
    fetch_all(shift, own, 2 * width + column, wide);
    fetch_all(add, own, 3 * width + column, wide);
    fetch_all(slope, own, 4 * width + column, wide);
    for (int64_t step = 0; step < steps; step++, at += width)
        UNROLLED for (int k = 0; k < wide; k++) {
            int64_t here = at + column + k * LANES;
            floats gap = fetch(y, here, count, is.half) - mean[k], through = fetch(by_z, here, count, is.half);
            if (is.rectifier != BARE) {
                floats value = is.added ? fetch(z, here, count, is.half) : gap * scale[k] + shift[k];
                through = chosen(value > 0, through);
                if (is.rectifier == CAPPED) through = chosen(value < ceiling, through);
                if (is.added) store(to_skip, here, through, count, is.half);
            }
            store(to_y, here, through * scale[k] + add[k] + slope[k] * gap, count, is.half);
        }
}

INLINE void strip(const struct norm *n, struct kind is, const float *own, int64_t width, int64_t column, int64_t at,
                  int64_t steps, int wide, int count, float *sums)
{
    if (is.backward)
        backward_strip(n, is, own, width, column, at, steps, wide, count);
    else
        forward_strip(n, is, own, width, column, at, steps, wide, count, sums);
}

/* What a tile's sums are taken around: its first rows, and 0 where these are no finite numbers. */
INLINE void centre_on(float *sums, const void *y, int64_t at, int64_t values, int half)
{
    for (int64_t column = 0; column < values; column += LANES) {
        int count = values - column < LANES ? values - column : LANES;
        floats given = fetch(y, at + column, count, half);
        store(sums, column, chosen(given - given == 0, given), count, 0);
    }
}

/* Some values of a map from `at` on: whole vectors of spans of rows, then what is left of less than a span.
 *
 * sums: (3, width), centres, sums of distances from them and of their squares; NULL where nobody asks.
 */
INLINE void tile(const struct norm *n, struct kind is, const float *own, int64_t width, int64_t at, int64_t values, float *sums)
{
    int64_t steps = values / width, left = values % width, column = 0;
    if (sums) centre_on(sums, n->y, at, steps ? width : left, is.half);
    if (steps) {
        for (; column + WIDE * LANES <= width; column += WIDE * LANES)
            strip(n, is, own, width, column, at, steps, WIDE, LANES, sums);
        for (; column < width; column += LANES) strip(n, is, own, width, column, at, steps, 1, LANES, sums);
    }
    at += steps * width;
    for (column = 0; column + LANES <= left; column += LANES) strip(n, is, own, width, column, at, 1, 1, LANES, sums);
    if (column < left) strip(n, is, own, width, column, at, 1, 1, left - column, sums);
}

static int64_t span_of(int64_t channels)
{
    int64_t span = 1;
    while (channels * span % LANES) span *= 2;
    return span;
}

/* `span` times; of all that is no number, the one that `store` can round: another's low bits would carry over into a 0. */
static void repeat(float *to, const float *from, int64_t channels, int64_t span)
{
    for (int64_t i = 0; i < channels; i++) to[i] = isnan(from[i]) ? NAN : from[i];
    for (int64_t i = 1; i < span; i++) memcpy(to + i * channels, to, 4 * channels);
}

/* Mean and variance of a group's channels, from the sums of its tiles: in double, around the first centre of each channel.
 *
 * total: (2, C), to work in.
 */
static void merge(const float *restrict sums, double *restrict total, int64_t width, int64_t channels, int64_t values,
                  float *mean, float *var)
{
    const float *origin = sums;
    const double rows = (double)(values / channels);
    memset(total, 0, 16 * channels);
    for (int64_t left = values; left > 0; left -= TILE * width, sums += 3 * width) {
        int64_t steps = left < TILE * width ? left / width : TILE, longer = left < TILE * width ? left % width : 0;
        for (int64_t start = 0; start < width; start += channels)
            for (int64_t channel = 0, at = start; channel < channels; channel++, at++) {
                double count = at < longer ? (double)steps + 1 : (double)steps;
                double move = (double)sums[at] - origin[channel], sum = sums[width + at];
                total[channel] += sum + count * move;
                total[channels + channel] += sums[2 * width + at] + (2 * sum + count * move) * move;
            }
    }
    for (int64_t channel = 0; channel < channels; channel++) {
        double gap = total[channel] / rows, spread = total[channels + channel] / rows - gap * gap;
        mean[channel] = (float)(values ? origin[channel] + gap : gap);
        var[channel] = (float)(spread < 0 ? 0 : spread);
    }
}

typedef void tiled(const struct norm *, const float *own, int64_t width, int64_t at, int64_t values, float *sums);

/* 0, or -1 where there is no memory for the sums. */
static int pass(tiled *one, const struct norm *n)
{
    int64_t span = span_of(n->channels), width = n->channels * span, values = n->rows * n->channels;
    int64_t tiles = (values + TILE * width - 1) / (TILE * width), all = n->groups * tiles;
    float *own = malloc(4 * 5 * width * n->groups), *sums = n->moments ? calloc(3 * width * all, 4) : NULL;
    double *total = malloc(16 * n->channels);
    if (!own || !total || (n->moments && !sums)) return free(own), free(sums), free(total), -1;
    for (int64_t g = 0; g < n->groups; g++) {
        const float *parts[] = {n->mean, n->scale, n->shift, n->by_y ? n->by_y + g * n->channels : NULL,
                                n->by_y ? n->by_y + (n->groups + g) * n->channels : NULL};
        for (int part = 0; part < 5; part++) {
            float *to = own + (5 * g + part) * width;
            parts[part] ? repeat(to, parts[part], n->channels, span) : memset(to, 0, 4 * width);
        }
    }
#pragma omp parallel for schedule(static) num_threads(n->threads) if (n->threads > 1)
    for (int64_t t = 0; t < all; t++) {
        int64_t group = t / tiles, start = t % tiles * TILE * width;
        int64_t count = values - start < TILE * width ? values - start : TILE * width;
        one(n, own + 5 * group * width, width, group * values + start, count, sums ? sums + 3 * width * t : NULL);
    }
    for (int64_t g = 0; n->moments && g < n->groups; g++) {
        float *mean = n->moments + g * n->channels, *var = mean + n->groups * n->channels;
        merge(sums + 3 * width * tiles * g, total, width, n->channels, values, mean, var);
    }
    return free(own), free(sums), free(total), 0;
}

#define KIND(name, ...)                                                                                                   \
    static void name(const struct norm *n, const float *own, int64_t width, int64_t at, int64_t values, float *sums)      \
    {                                                                                                                     \
        tile(n, (struct kind){__VA_ARGS__}, own, width, at, values, sums);                                                \
    }
#define PASS(name, backward, half)                                                                                        \
    KIND(name##_bare, backward, half, 0, BARE)                                                                            \
    KIND(name##_bare_sum, backward, half, 1, BARE)                                                                        \
    KIND(name##_relu, backward, half, 0, RECTIFIED)                                                                       \
    KIND(name##_relu_sum, backward, half, 1, RECTIFIED)                                                                   \
    KIND(name##_capped, backward, half, 0, CAPPED)                                                                        \
    KIND(name##_capped_sum, backward, half, 1, CAPPED)                                                                    \
    int name(const struct norm *n)                                                                                        \
    {                                                                                                                     \
        tiled *kinds[] = {name##_bare, name##_bare_sum, name##_relu, name##_relu_sum, name##_capped, name##_capped_sum};  \
        int rectifier = n->ceiling == 0 ? BARE : isinf(n->ceiling) ? RECTIFIED : CAPPED;                                  \
        return pass(kinds[2 * rectifier + (n->skip || n->to_skip)], n);                                                   \
    }

PASS(forward_float, 0, 0)
PASS(forward_half, 0, 1)
PASS(backward_float, 1, 0)
PASS(backward_half, 1, 1)
