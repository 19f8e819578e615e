/* $about
 *
 *     I[o, y, x] += w[o, c, i, j] * s[c, $row_seen, $column_seen]$over
 *
 * turned round, so that work follows spikes: one input adds its weights wherever it is seen. */
static void ${name}_add(int32_t c, int32_t row, int32_t column, $value value, $acc *I)
{
    for (int32_t i = $i_first; i < $i_taps; i += $i_step) {
        const int32_t y = $i_at;
        $i_check
        for (int32_t j = $j_first; j < $j_taps; j += $j_step) {
            const int32_t x = $j_at;
            $j_check
            const $weight *const w = ${name}_weight[(c * $i_taps + i) * $j_taps + j];
            $acc *const to = I + (y * $columns + x) * $filters$group;
            for (int32_t o = 0; o < $per_group; o++)
                to[o] = $sum;
        }
    }
}

