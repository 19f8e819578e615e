/* The whole part of a number that is not negative; from 2^24 on every float is whole. */
static float $name(float x)
{
    return x < 16777216.0f ? (float)(int32_t)x : x;
}

