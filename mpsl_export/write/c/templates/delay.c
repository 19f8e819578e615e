/* $about
 *
 *     out[i] at step t = in[i] at step t - steps[i]
 *
 * The ring holds the last $longest steps; `${local}_now` is the oldest, which this one replaces. */
static void $name(${prefix}_state *state, const float *in, float *out)
{
    const int32_t now = state->${local}_now;
    $loop
    state->${local}_now = (now + 1) % $longest;
}

