/* $title
 *
 * $about
 *
 * Everything that changes is in ${prefix}_state, which the caller owns: $state_bytes bytes. Nothing is allocated,
 * nothing recurses, and nothing global is written to.
 *
$metadata
 */
#ifndef ${PREFIX}_MODEL_H
#define ${PREFIX}_MODEL_H

#include <stdint.h>

/* What declarations begin with; `static` for who includes model.c. */
#ifndef ${PREFIX}_API
#define ${PREFIX}_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ${PREFIX}_INPUTS ${inputs}u /* $input_shape */
#define ${PREFIX}_CLASSES ${classes}u
$steps
$step_us

/* An input that is not 0: $event_about */
typedef struct {
    $event_at at;
    $event_value value;
} ${prefix}_event;

/* $score_about */
typedef $score ${prefix}_score;

typedef struct {
    $members
    struct {
        $pools
    } scratch; /* nothing in it outlives a step */
} ${prefix}_state;

enum {
    ${PREFIX}_OK = 0,
    ${PREFIX}_BAD_EVENT = 1, /* $bad_event; the state is as before */
    ${PREFIX}_RESET_FIRST = 2 /* $reset_first */
};

/* The names of the classes, in UTF-8. */
extern const char *const ${prefix}_classes[${PREFIX}_CLASSES];

/* To rest: before the first step, and before each sample. */
${PREFIX}_API void ${prefix}_reset(${prefix}_state *state);

/* One step on `n` events, in any order; values of one input add up. Writes the scores so far. */
${PREFIX}_API int ${prefix}_step(${prefix}_state *state, const ${prefix}_event *events, uint32_t n,
    ${prefix}_score scores[${PREFIX}_CLASSES]);

/* The class of the highest score; of equals the lowest class. */
${PREFIX}_API uint32_t ${prefix}_label(const ${prefix}_score scores[${PREFIX}_CLASSES]);
$camera

#ifdef __cplusplus
}
#endif

#endif
