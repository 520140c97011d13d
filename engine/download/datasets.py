"""In a download this is `engine.datasets`: only what training needs of it."""

Statistics = tuple[
    tuple[float, float, float], tuple[float, float, float]
]  # mean and std per channel, of pixels in 0..1
