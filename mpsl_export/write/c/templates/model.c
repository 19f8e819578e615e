/* $title: see model.h. */
#include "model.h"

#include <string.h>

$float_guard
/* For who wants to look inside: called for each neuron at each step, before its reset. */
#ifndef ${PREFIX}_TRACE
#define ${PREFIX}_TRACE(population, neuron, U, fired) ((void)(neuron))
#endif

/* The state is as large as model.h says. */
typedef char ${prefix}_size_is_right[sizeof(${prefix}_state) == $state_bytes ? 1 : -1];

const char *const ${prefix}_classes[${PREFIX}_CLASSES] = {$class_names};

$parts
/* The input of a step: the values of all events. */
static int ${prefix}_input(const ${prefix}_event *events, uint32_t n, $input_type *in)
{
    memset(in, 0, ${PREFIX}_INPUTS * sizeof *in);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t s = events[k].at;
        if (s >= ${PREFIX}_INPUTS) return ${PREFIX}_BAD_EVENT;
        $accumulate
    }
    return ${PREFIX}_OK;
}

${PREFIX}_API void ${prefix}_reset(${prefix}_state *state)
{
    memset(state, 0, sizeof *state);
    $resets
}

${PREFIX}_API int ${prefix}_step(${prefix}_state *state, const ${prefix}_event *events, uint32_t n,
    ${prefix}_score scores[${PREFIX}_CLASSES])
{
    $pointers
    $horizon
    if (${prefix}_input(events, n, input) != ${PREFIX}_OK) return ${PREFIX}_BAD_EVENT;
    $counted
    $body
    return ${PREFIX}_OK;
}

${PREFIX}_API uint32_t ${prefix}_label(const ${prefix}_score scores[${PREFIX}_CLASSES])
{
    uint32_t best = 0;
    for (uint32_t k = 1; k < ${PREFIX}_CLASSES; k++)
        if (scores[k] > scores[best]) best = k;
    return best;
}
