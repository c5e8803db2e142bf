"""Scores of pictures, always with an interval and the number of pictures beside them.

    open_metrics(["KID-mini", "CLIP-mini"])["KID-mini"](images, prompts, rendered(prompts))  →  Scores

pictures       what is scored, and what it is scored against
scores         a value, its interval, and which two may be compared
towers         pictures → features: the miniature CLIP, Inception, any CLIP
distributions  FD and KID of two sets of features
closeness      PSNR and SSIM of two pictures
paired         PSNR, SSIM, LPIPS to the large model's pictures
fit            the cosine of picture and prompt
metrics        all of them, by name
"""
