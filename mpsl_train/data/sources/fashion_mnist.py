"""Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf), from Zalando and its repository."""

from __future__ import annotations

from mpsl_train.data.sources.idx_files import idx_download
from mpsl_train.data.sources.source import register

__all__ = ["SOURCE"]

SOURCE = register(
    idx_download(
        "fashion-mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    )
)
