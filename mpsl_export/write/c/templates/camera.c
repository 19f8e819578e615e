
/* The event of pixel (x, y) of the sensor, ${width}x${height}, p its polarity, 0 or 1. Returns 0 where the
 * network does not look. A step is ${step_us} microseconds. */
static inline int ${prefix}_camera(uint32_t x, uint32_t y, uint32_t p, ${prefix}_event *event)
{
    $crop
    if (x >= ${columns}u || y >= ${rows}u || p >= 2u) return 0;
    event->at = ($at)((p * ${rows}u + y) * ${columns}u + x);
    event->value = 1;
    return 1;
}
