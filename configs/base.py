"""Every field of an experiment: its default, its unit and its source. The only file that adds fields.

Every other config imports this `get_config`, changes a few values, and returns it. Fields marked "not
printed" are our decision (README, "Where the paper is silent"). An option of `model` that is None belongs to
another network. A run resumes only with the config it started with, field by field
(`workdir.claim.check_same_config`).
"""

from ml_collections import ConfigDict, config_dict


def loss_weights(**weights: float) -> ConfigDict:
    """Weights of Eq. 26; a term of weight 0 is not computed."""
    names = ("l1", "perceptual", "decloss", "gan", "ragan", "rank_content", "likelihood", "phase")
    terms = ConfigDict(dict.fromkeys(names, 0.0))
    terms.update(weights)
    return terms


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # determines initial weights, crops and flips, together with the step
    config.batch_size = 32  # images, over all devices together (Sec. 5.1)
    # Images that a device processes in its networks at a time, to save memory (discriminator and Ranker take
    # all); must divide the device's share of the batch. The result is the same. None: all.
    config.micro_batch = config_dict.placeholder(int)
    config.init_from = ""  # workdir of another run, or a weights file; stage 2 starts from its generator
    config.init_from_key = ""  # params or params_ema, if the file has both; "": params_ema

    config.model = ConfigDict()
    config.model.name = "edsr"  # a key of decloss_jax.models.MODELS
    config.model.scale = 4  # s (Sec. 5.1)
    config.model.features = 64  # EDSR-baseline, which reaches the paper's 28.97 dB
    config.model.blocks = 16
    config.model.dtype = "float32"  # of the convolutions: float32 or bfloat16; parameters are float32
    config.model.res_scale = config_dict.placeholder(float)  # edsr: 1.0 when not set
    config.model.growth = config_dict.placeholder(int)  # rrdb, srflow: 32 when not set
    # rrdb, srflow: recompute blocks or steps in the backward pass; off
    config.model.remat = config_dict.placeholder(bool)
    config.model.stacked_blocks = config_dict.placeholder(tuple)  # srflow: (1, 8, 15, 22) when not set
    config.model.flow_steps = config_dict.placeholder(int)  # srflow: 16 per level when not set
    config.model.hidden = config_dict.placeholder(int)  # srflow: 64 when not set

    config.data = ConfigDict()
    config.data.source = "folder"  # a key of decloss_jax.data.sources.SOURCES
    # folder: the training images; separate several folders by commas (DF2K), with no image name in common.
    # tfds: its data_dir, or the folder of a prepared data set.
    config.data.root = "data/DIV2K"
    config.data.archives = ""  # tfds: folder of DIV2K's .zip files, to prepare a missing data set
    config.data.validation_root = ""  # folder: the validation images, if the layout lacks them
    # Of the root's images with this prefix, the last ones are for validation and never trained on.
    config.data.held_out_prefix = ""
    config.data.held_out_images = 0  # their number
    config.data.cache_dir = "data/cache"  # decoded uint8 images, memory-mapped
    config.data.crop_size = 192  # HR pixels, square (Sec. 5.1)
    config.data.threads = 8  # for reading ahead

    # Stage 1 (Sec. 5.1): L1 alone, 200 epochs of 1000 batches, 5 epochs of warm-up.
    config.pretrain = ConfigDict()
    config.pretrain.steps = 200_000  # 0 skips the stage
    config.pretrain.learning_rate = 1e-4  # peak
    config.pretrain.warmup_steps = 5_000  # w: update t = 1..w has the rate peak t/w; a cosine starts after it
    # "cosine" to 0, "constant", or "multistep": times gamma after each milestone. Milestones count the
    # updates of this stage, including the warm-up. EDSR: gamma 0.5 at 200k; ESRGAN: 0.5 at 50k, 100k,
    # 200k, 300k.
    config.pretrain.schedule = "cosine"
    config.pretrain.milestones = ()
    config.pretrain.gamma = 0.5
    config.pretrain.restarts = 0  # warm restarts of the cosine ("gamma = 0.5" is not explained: one cosine)
    config.pretrain.restart_gamma = 0.5  # factor of the peak at each restart
    config.pretrain.weights = loss_weights(l1=1.0)

    # Stage 2 (Sec. 5.1); its length is not printed.
    config.finetune = ConfigDict()
    config.finetune.steps = 200_000
    config.finetune.learning_rate = 2e-5
    config.finetune.warmup_steps = 0
    config.finetune.schedule = "cosine"
    config.finetune.milestones = ()
    config.finetune.gamma = 0.5
    config.finetune.restarts = 0
    config.finetune.restart_gamma = 0.5
    config.finetune.weights = loss_weights(l1=1e-2, perceptual=1.0, decloss=3e-5)

    config.decloss = ConfigDict()
    config.decloss.patch_size = 8  # p, HR pixels (Sec. 5.1)
    config.decloss.alpha = 1.0  # Eq. 15; not printed
    config.decloss.mu = 0.25  # Eq. 15, as a fraction of the crop's side (bins = mu * crop_size); not printed
    config.decloss.mode = "multiply"  # as printed, or "residual": DFT + K DFT
    # "separable" (Eq. 15), or ours: "radial", the same in all directions, or "radial_notched", that one
    # without the frequencies of lattices of 2, 4 and 8 pixels.
    config.decloss.kernel = "separable"
    config.decloss.color = "rgb"  # or "luma", the mean of the channels (ours)
    config.decloss.threshold_db = 25.0  # eta of Eq. 21, 22; not printed
    config.decloss.t_pos = 0.5  # Sec. 5.1
    config.decloss.t_neg = 1.5  # Sec. 5.1
    config.decloss.temperature = "exponent"  # e^(S/t), or "scale": e^S / t, as printed
    config.decloss.scope = "global"  # negatives from the global batch, or "device": from each device alone
    config.decloss.tile_size = config_dict.placeholder(int)  # anchors per strip; None: automatic
    config.decloss.precision = "high"  # of products on accelerators: highest, high (TF32), default, bf16

    config.perceptual = ConfigDict()
    config.perceptual.network = "vgg19"  # Eq. 25; or "vgg16", "alexnet", whose weights come with a dependency
    config.perceptual.weights_file = ""  # torchvision's vgg19-dcbb9e9d.pth; "": $DECLOSS_VGG19, or a download
    config.perceptual.taps = ()  # names of layers; (): the last convolution before its activation (ESRGAN)
    config.perceptual.tap_weights = ()  # one factor per tap; (): 1 each
    config.perceptual.dtype = "float32"  # of the network: float32 or bfloat16; the distance is float32
    config.perceptual.criterion = "l1"  # as in ESRGAN, whose weights these are, or "l2" (Eq. 25)

    config.discriminator = ConfigDict()  # for the terms gan and ragan; VGG-style, sized by the crops
    config.discriminator.init_from = ""  # file of BasicSR's VGGStyleDiscriminator; "": random, from the seed
    config.discriminator.dtype = "float32"  # of the layers: float32 or bfloat16; parameters, logits: float32
    config.discriminator.features = 64  # of its first stage (SRGAN, ESRGAN)
    # How many times it halves the crops, rounding down; None: until 4 to 7 pixels are left. RankSRGAN: 5.
    config.discriminator.stages = config_dict.placeholder(int)
    config.discriminator.learning_rate_ratio = 1.0  # relative to the generator's learning rate (ESRGAN: 1)
    config.discriminator.statistics = "global"  # of batch norms: global batch, or "device": each alone
    config.discriminator.untrained_generator = False  # True: allow a generator without stage 1

    config.ranker = ConfigDict()  # for the term rank_content (RankSRGAN), a sum over the batch
    # Of the frozen Ranker: a workdir of its run, or a file in RankSRGAN's layout.
    config.ranker.weights_file = ""
    config.ranker.bias = 0.0  # subtracted from its scores
    config.ranker.statistics = "running"  # of batch norms, or "batch", as in RankSRGAN's code
    # To train a Ranker (model.name "ranker"; configs/table3/ranker.py sets these). The networks whose results
    # it orders: three workdirs or files of weights, separated by commas; the best PSNR first, the best NIQE
    # last.
    config.ranker.networks = config_dict.placeholder(str)
    # Windows of data.crop_size pixels, half of it apart, are kept if the last network's result is as sharp
    # as this (the sum of its local deviations over 96 x 96), and if NIQE sets it apart from the network
    # before by more than this.
    config.ranker.sharpness = config_dict.placeholder(float)
    config.ranker.niqe_difference = config_dict.placeholder(float)
    config.ranker.windows_per_image = config_dict.placeholder(int)  # at most
    config.ranker.weight_decay = config_dict.placeholder(float)  # times the parameters, added to the gradient

    # Moving average of the generator's parameters, e <- decay e + (1 - decay) w after each update.
    # Validation, evaluation, export and the next stage use it. 0: none, as in the paper; BasicSR's ESRGAN
    # uses 0.999.
    config.ema_decay = 0.0

    # For both networks.
    config.adam_b1 = 0.9  # Sec. 5.1
    config.adam_b2 = 0.999  # Sec. 5.1
    config.adam_eps = 1e-8  # torch's default
    # Gradients with a larger global norm are scaled down to it, each network separately. None: no clipping.
    config.gradient_clip_norm = config_dict.placeholder(float)

    # True makes XLA choose GPU kernels that give the same bits each time (train.py sets XLA_FLAGS). Never
    # tried on a GPU, and not needed on CPUs. docs/training.md names another flag, which train.py never sets.
    config.deterministic = False

    config.log_every_steps = 100  # steps per journal line
    config.eval_every_steps = 5_000  # PSNR on the validation images, sample strips
    config.checkpoint_every_steps = 1_000
    config.validation_images = 100  # at most, the first of the list
    config.sample_images = 4  # strips (low / sr / hr) per evaluation
    return config
