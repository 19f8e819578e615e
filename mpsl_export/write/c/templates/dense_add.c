/* $about
 *
 *     I[o] += w[o, s] * value            for each input s that is not 0 */
static void ${name}_add(int32_t s, $value value, $acc *I)
{
    const $weight *const w = ${name}_weight[s];
    for (int32_t o = 0; o < $outputs; o++)
        I[o] = $sum;
}

