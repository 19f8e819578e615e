/* The probe of $title
 *
 * Runs the model on an input that was made for it and prints the SHA-256 of the spikes of every
 * neuron at every step. Exits with 1 if that is another than the exporter's reference gave.
 *
 * The model is compiled in here once more, so that it shows its neurons: model.c itself has nothing
 * for that. */
#include <stdint.h>

static void probe_trace(int population, int32_t neuron, int fired);
#define ${PREFIX}_TRACE(population, neuron, U, fired) probe_trace(population, neuron, fired)
#define ${PREFIX}_API static
#define ${prefix}_classes ${prefix}_classes_of_probe
#include "model.c"

#include <stdio.h>

static const char expected[] =
    "$digest";

/* The events of step t are those from first[t] to first[t + 1]. */
$first
$events
$outputs
/* A bit for each neuron, a row for each step, one population behind the other: where a population
 * begins, and the bytes of a row. */
$begins
$lengths
static uint8_t bits[$bits];
static uint32_t step;
static ${prefix}_state state;

static void probe_trace(int population, int32_t neuron, int fired)
{
    $places
    if (fired)
        bits[begins[population] + step * lengths[population] + (uint32_t)(neuron / 8)]
            |= (uint8_t)(128 >> neuron % 8);
}

/* SHA-256 (FIPS 180-4), a byte at a time. */
static uint32_t hash[8] = {
    0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu,
    0x5be0cd19u
};
static const uint32_t constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u
};
static uint8_t block[64];
static uint32_t length;

static uint32_t turned(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void mix(void)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16
            | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3)
            + w[i - 7] + (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, hash, sizeof v);
    for (int i = 0; i < 64; i++) {
        const uint32_t one = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25))
            + ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants[i] + w[i];
        const uint32_t two = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22))
            + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) hash[i] += v[i];
}

static void add(uint8_t byte)
{
    block[length++ % 64] = byte;
    if (length % 64 == 0) mix();
}

static void finish(char *text)
{
    const uint32_t bytes = length;
    add(0x80);
    while (length % 64 != 56) add(0);
    for (int i = 7; i >= 0; i--) add((uint8_t)(i < 4 ? bytes * 8 >> 8 * i : 0));
    for (int i = 0; i < 64; i++) text[i] = "0123456789abcdef"[hash[i / 8] >> (28 - 4 * (i % 8)) & 15];
    text[64] = 0;
}

int main(void)
{
    ${prefix}_score scores[${PREFIX}_CLASSES];
    char text[65];
    $untraced
    ${prefix}_reset(&state);
    for (step = 0; step < $steps; step++)
        if (${prefix}_step(&state, events + first[step], first[step + 1] - first[step], scores) != ${PREFIX}_OK) {
            puts("a step was refused");
            return 1;
        }
    for (uint32_t k = 0; k < sizeof bits; k++) add(bits[k]);
    finish(text);
    puts(text);
    if (strcmp(text, expected) != 0) {
        printf("expected %s\n", expected);
        return 1;
    }
    $compared
    return ${prefix}_label(scores) < ${PREFIX}_CLASSES ? 0 : 1;
}
