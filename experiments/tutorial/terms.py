"""The words that the page explains and the works that it cites."""

GLOSSARY = {
    "nat": "The unit of information where logarithms are natural: 1 nat is 1.44 bits, and an event "
    "of probability $p$ carries $-\\log p$ nats.",
    "random variable": "A quantity with a probability for each of its values; what is drawn from "
    "its distribution is a value.",
    "expectation": "The mean of a function under a distribution, "
    "$\\mathbb{E}_{q}[f(z)] = \\int q(z)\\, f(z)\\, dz$; estimated by the mean over draws.",
    "latent variable": "One that is never observed: the code $z$ that the model supposes behind an "
    "image $x$.",
    "prior": "The distribution of the code before an image is seen, $p(z)$.",
    "posterior": "The distribution of the code once the image is known. The true one is "
    "$p(z \\mid x)$; the encoder computes an approximate one, $q_\\phi(z \\mid x)$.",
    "likelihood": "The probability of the image given its code, $p_\\theta(x \\mid z)$, which the "
    "decoder computes.",
    "evidence": "The probability of the image under all codes, $p(x)$; its logarithm is what the "
    "ELBO bounds from below.",
    "divergence": "How far one distribution is from another, in nats and never negative; here "
    "always Kullback's and Leibler's, $\\mathrm{KL}(q \\,\\|\\, p) = "
    "\\mathbb{E}_q[\\log q(z) - \\log p(z)]$.",
    "ELBO": "The evidence lower bound, $\\mathcal{L}(x) \\le \\log p(x)$: reconstruction minus "
    "divergence from the prior.",
    "amortisation": "One network computes $q_\\phi(z \\mid x)$ for every image, where classical "
    "variational inference fits a $q$ to each image on its own. What this costs is the "
    "amortisation gap.",
    "reparameterisation": "A draw written as a function of the parameters and of noise that has "
    "none, $z = \\mu + \\sigma \\epsilon$, so that the gradient can pass through it.",
    "posterior collapse": "A latent dimension (or all of them) whose posterior is the prior for "
    "every image: it says nothing, and the decoder does without it.",
    "active unit": "A latent dimension whose posterior mean moves with the image: a variance over "
    "images above 0.01 (Burda et al. 2016).",
    "beta": "A weight on the divergence in the loss (Higgins et al. 2017); 1 is the bound itself.",
    "information bottleneck": "The view of the loss as a trade between how much a code keeps of "
    "its input and how much it serves its task (Tishby et al. 1999; Alemi et al. 2017): the "
    "divergence is an upper bound of the information that codes have about images.",
    "importance sampling": "Estimating an integral over one distribution by weighted draws from "
    "another.",
    "precision and recall": "Of generated images: the share that lies where real ones are, and the "
    "share of real ones that lies where generated ones are (Kynkäänniemi et al. 2019).",
}

REFERENCES = {
    "Alemi et al. 2017": "A. A. Alemi, I. Fischer, J. V. Dillon, K. Murphy: Deep variational "
    "information bottleneck. ICLR 2017.",
    "Bishop 2006": "C. M. Bishop: Pattern recognition and machine learning. Springer, 2006.",
    "Burda et al. 2016": "Y. Burda, R. Grosse, R. Salakhutdinov: Importance weighted autoencoders. "
    "ICLR 2016.",
    "Cremer et al. 2018": "C. Cremer, X. Li, D. Duvenaud: Inference suboptimality in variational "
    "autoencoders. ICML 2018.",
    "Doersch 2016": "C. Doersch: Tutorial on variational autoencoders. arXiv:1606.05908, 2016.",
    "Higgins et al. 2017": "I. Higgins, L. Matthey, A. Pal and others: beta-VAE: learning basic "
    "visual concepts with a constrained variational framework. ICLR 2017.",
    "Jordan et al. 1999": "M. I. Jordan, Z. Ghahramani, T. S. Jaakkola, L. K. Saul: An "
    "introduction to variational methods for graphical models. Machine Learning 37, 1999.",
    "Kingma & Welling 2014": "D. P. Kingma, M. Welling: Auto-encoding variational Bayes. "
    "ICLR 2014.",
    "Kingma & Welling 2019": "D. P. Kingma, M. Welling: An introduction to variational "
    "autoencoders. Foundations and Trends in Machine Learning 12, 2019.",
    "Kynkäänniemi et al. 2019": "T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila: "
    "Improved precision and recall metric for assessing generative models. NeurIPS 2019.",
    "Locatello et al. 2019": "F. Locatello, S. Bauer, M. Lucic and others: Challenging common "
    "assumptions in the unsupervised learning of disentangled representations. ICML 2019.",
    "Matthey et al. 2017": "L. Matthey, I. Higgins, D. Hassabis, A. Lerchner: dSprites: "
    "disentanglement testing sprites dataset. 2017.",
    "Neal & Hinton 1998": "R. M. Neal, G. E. Hinton: A view of the EM algorithm that justifies "
    "incremental, sparse, and other variants. Learning in Graphical Models, 1998.",
    "Rezende et al. 2014": "D. J. Rezende, S. Mohamed, D. Wierstra: Stochastic backpropagation and "
    "approximate inference in deep generative models. ICML 2014.",
    "Sohn et al. 2015": "K. Sohn, H. Lee, X. Yan: Learning structured output representation using "
    "deep conditional generative models. NeurIPS 2015.",
    "Tipping & Bishop 1999": "M. E. Tipping, C. M. Bishop: Probabilistic principal component "
    "analysis. Journal of the Royal Statistical Society B 61, 1999.",
    "Tishby et al. 1999": "N. Tishby, F. C. Pereira, W. Bialek: The information bottleneck method. "
    "Allerton Conference, 1999.",
    "Williams 1992": "R. J. Williams: Simple statistical gradient-following algorithms for "
    "connectionist reinforcement learning. Machine Learning 8, 1992.",
}
"""By what the text says; a citation may also stand as Bishop (2006)."""
