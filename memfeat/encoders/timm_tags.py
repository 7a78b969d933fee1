"""What the weights of a timm model were trained on, as far as their tag says it."""

CLASSES = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
}
TEXT = (
    "openai laion2b laion400m laiona datacomp1b datacompxl dfn2b dfn5b dfndr2b metaclip metaclip2 "
    "mclip mclip2 webli cc12m yfcc15m"
)
# Recipes, makers, sizes and durations of training to classify, which say nothing of other data.
RECIPES = (
    "ft augreg augreg2 orig ra ra2 ra3 ra4 a1 a1h a2 a2h a3 ah am ram ad ap aa bt b1k b2k c c1 c2 "
    "c3 ch d d1 d1h d2 agc rmsp lamb adv dist distilled deit rsb tv tv2 tf gluon goog fb ms msft "
    "sw miil pycls rvgg nav nv mx bd naver apple paddle snap sail cvnets sbb sbb2 usi lion "
    "nadamuon racm e150 e200 e250 e300 e450 e500 e600 e1200 e2400 e3000 e3600 300e 450e "
    "r160 r208 r224 r240 r256 r288 r320 r384 r448 r512 288 320 384 475 512"
)


def trained_on(tag: str) -> str:
    """Say in words what a tag says.

    Classification is claimed only where the whole tag is understood: among the marks that are not
    are those of training without labels, on labels of another kind, or by distilling them.

    >>> trained_on("augreg_in21k_ft_in1k")
    'ImageNet-21k, then ImageNet-1k classification'
    >>> trained_on("laion2b_ft_in1k")
    'image-text pairs, then ImageNet-1k classification'
    >>> trained_on("mae")
    'see the tag mae in timm'
    """
    marks, text = tag.split("_"), set(TEXT.split())
    stages = ["image-text pairs"] if text.intersection(marks) else []
    classes = [CLASSES[mark] for mark in marks if mark in CLASSES]
    if classes and text.union(CLASSES, RECIPES.split()).issuperset(marks):
        return ", then ".join([*stages, *classes]) + " classification"
    understood = stages and not classes and "ft" not in marks
    return stages[0] if understood else f"see the tag {tag} in timm"
