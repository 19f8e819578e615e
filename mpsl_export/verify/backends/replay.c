/* Runs samples that come on stdin through a model, and shows what every neuron did.
 *
 * In:  samples, steps (uint32); then for each step of each sample the number of events (uint32) and
 *      the events, each `at` (uint32) and `value` (float).
 * Out: for each step U of the populations that were asked for (float), whether they fired (byte),
 *      and the scores (float).
 * Arguments: the first element and the number of elements of all populations that are written.
 * A step that is refused ends it, with its code. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

static const long begins[] = {REPLAY_BEGINS};
static float *membranes;
static unsigned char *fires;

void replay_trace(int population, int32_t neuron, float U, int fired)
{
    const long at = begins[population] + neuron;
    membranes[at] = U;
    fires[at] = (unsigned char)fired;
}

static int replay_step(REPLAY(state) *state, const REPLAY(event) *events, uint32_t n, long first, long count)
{
    REPLAY(score) scores[REPLAY_CLASSES];
    float shown[REPLAY_CLASSES];
    const int code = REPLAY(step)(state, events, n, scores);
    if (code != 0) return 10 + code;
    for (uint32_t k = 0; k < REPLAY_CLASSES; k++) shown[k] = (float)scores[k];
    fwrite(membranes + first, sizeof *membranes, (size_t)count, stdout);
    fwrite(fires + first, 1, (size_t)count, stdout);
    fwrite(shown, sizeof *shown, REPLAY_CLASSES, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    REPLAY(state) *const state = malloc(sizeof *state);
    uint32_t header[2], n, room = 0;
    REPLAY(event) *events = NULL;
    if (argc != 3) return 2;
    const long first = atol(argv[1]), count = atol(argv[2]);
    membranes = calloc(REPLAY_NEURONS + 1, sizeof *membranes);
    fires = calloc(REPLAY_NEURONS + 1, 1);
    if (!state || !membranes || !fires || fread(header, sizeof header, 1, stdin) != 1) return 2;
    for (uint32_t sample = 0; sample < header[0]; sample++) {
        REPLAY(reset)(state);
        for (uint32_t step = 0; step < header[1]; step++) {
            if (fread(&n, sizeof n, 1, stdin) != 1) return 2;
            if (n > room || !events) {
                room = n + 1;
                events = realloc(events, room * sizeof *events);
                if (!events) return 2;
            }
            for (uint32_t k = 0; k < n; k++) {
                uint32_t at;
                float value;
                if (fread(&at, sizeof at, 1, stdin) != 1) return 2;
                if (fread(&value, sizeof value, 1, stdin) != 1) return 2;
                events[k].at = (REPLAY_AT)at;
                events[k].value = (REPLAY_VALUE)value;
            }
            const int code = replay_step(state, events, n, first, count);
            if (code != 0) return code;
        }
    }
    free(events);
    free(membranes);
    free(fires);
    free(state);
    return 0;
}
