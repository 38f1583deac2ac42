"""From a config to the sizes of its training phases and hops."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax.config import ConfigError
from ecogen_jax.config_federated import is_federated
from ecogen_jax.config_hops import first_tier
from ecogen_jax.nets.functional import Net
from ecogen_jax.relay import learn
from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Generation,
    Hop,
    Kind,
    Study,
    Weights,
)
from ecogen_jax.relay.distillers.learned_weights import with_learned_weights
from ecogen_jax.relay.ensemble import (
    by_class_weights,
    equal_weights,
    label_count_weights,
)
from ecogen_jax.relay.parties import Nets, Topology
from ecogen_jax.relay.protocols.relay_cycle import LEGS
from ecogen_jax.relay.settings import HopSettings, LearnSettings, Leg, Route

WEIGHINGS = {
    "label_counts": label_count_weights,
    "by_class": by_class_weights,
    "equal": equal_weights,
    "learned": equal_weights,
}
"""How several teachers are weighted at the start, by name."""


def route(config: ConfigDict, pictures: Callable[[str], np.ndarray]) -> Route:
    """The hops of a config, and the stages before them.

    Args:
      config: of the run.
      pictures: training images of another dataset by its name, in the run's shape.
    """
    protocol = config.protocol
    if protocol.name == "relay_cycle":
        return Route(start=(), baselines=(), images={}, legs=LEGS)
    if is_federated(config):
        return Route(start=(), baselines=(), images={}, legs=())
    start: tuple[str, ...] = ("pretrain",)
    if first_tier(config) == "end":
        names = config.nets.end.split(",")
        start = tuple(f"train/{name}" for name in names) if names[1:] else ("train",)
    others = [name for name in protocol.baselines if name.startswith("kd_")]
    return Route(
        start=() if protocol.start_from else start,
        baselines=protocol.baselines,
        images={
            name: pictures(name.removeprefix("kd_"))
            for name in others
            if name != "kd_noise"
        },
        legs=_legs(config),
    )


def _legs(config: ConfigDict) -> tuple[Leg, ...]:
    legs, trained = [], {first_tier(config)}
    makers: dict[str, str] = {}  # by tier: the maker of the generator that it holds
    for entry in config.protocol.route:
        sender, receiver = entry.split(">")
        leg = Leg(sender, receiver, returns=False)
        returns = leg.direction == "up" and receiver in trained
        distiller = DISTILLERS[config[_section(leg)].distiller]
        goes_on = distiller.one_generator  # others start with new ones
        maker = makers.get(leg.trainer, "") if goes_on else ""
        legs.append(leg._replace(returns=returns, generator=maker))
        trained.add(receiver)
        # The party that trained has a new generator, which was not sent yet.
        makers = {tier: made for tier, made in makers.items() if made != leg.trainer}
        if config.protocol.hand_on_generators and distiller.keeps_generator:
            makers[leg.trainer] = makers[receiver] = leg.trainer
    if config.protocol.hand_on_generators and not any(leg.generator for leg in legs):
        fitting = [name for name, kind in DISTILLERS.items() if kind.one_generator]
        raise ConfigError(
            "protocol.hand_on_generators",
            True,
            "False, as no hop of the route trains the generator that its sender got; "
            f"those that train one from first to last are {', '.join(fitting)}",
        )
    return tuple(legs)


def learning(config: ConfigDict, nets: Nets, way: Route) -> dict[str, LearnSettings]:
    """Sizes of the phases that train without a generator, by the name of their stage.

    Args:
      config: of the run.
      nets: the classifiers of each tier.
      way: its route.
    """
    local = config.local
    sizes = {
        "pretrain": _learning(
            config, "pretrain", nets.cloud, config.pretrain.learning_rate
        )
    }
    if config.protocol.name == "relay_cycle":
        (end,) = nets.end
        return sizes | {
            "local_only": _learning(config, "local", end, local.scratch_learning_rate),
            "local": _learning(
                config, "local", end, local.learning_rate, local.replay_weight
            ),
        }
    if way.baselines:
        sizes["baseline"] = _baseline(config, nets, way.legs[0])
    if first_tier(config) == "cloud":
        return sizes
    return sizes | {
        name: _learning(config, "local", net, local.scratch_learning_rate)
        for name, net in zip(way.start, nets.end, strict=False)
    }


def _learning(
    config: ConfigDict,
    name: str,
    net: Net,
    learning_rate: float,
    replay_weight: float = 0.0,
) -> LearnSettings:
    section = config[name]
    learner = learn.learner(
        net,
        batch_size=section.batch_size,
        learning_rate=learning_rate,
        total_steps=section.rounds * section.steps,
        temperature=config.down_edge_end.temperature,
        replay_weight=replay_weight,
        augmentation=Augmentation(section.shift, section.flip),
    )
    return LearnSettings(section.rounds, section.steps, learner)


def _baseline(config: ConfigDict, nets: Nets, leg: Leg) -> LearnSettings:
    """The student steps, batch size and learning rate of the hop.

    Images are not augmented, whatever the hop's augmentation.
    """
    hop = config[_section(leg)]
    steps = hop.steps * hop.student_steps
    learner = learn.learner(
        nets.of_tier(leg.receiver)[0],
        batch_size=hop.batch_size,
        learning_rate=hop.learning_rate,
        total_steps=hop.rounds * steps,
        temperature=hop.temperature,
        replay_weight=1.0,
    )
    return LearnSettings(hop.rounds, steps, learner)


def hops(
    config: ConfigDict,
    nets: Nets,
    way: Route,
    shape: tuple[int, int, int],
    num_classes: int,
) -> dict[str, HopSettings]:
    """Sizes and distillers of the hops, by the name of their stage.

    Args:
      config: of the run.
      nets: the classifiers of each tier.
      way: its route.
      shape: height, width and channels of one image.
      num_classes: number of labels.

    Raises:
      ConfigError: a distiller does not fit the protocol or its weights.
    """

    def settings(leg: Leg) -> HopSettings:
        section = config[_section(leg)]
        kind = kind_of(config, leg)
        own = nets.of_tier(leg.receiver)[:1]
        teachers = nets.of_tier(leg.sender) + (own if leg.returns else ())
        if section.weights.attention:
            _check_attention(config, leg, nets, shape)
        how = generation(config, leg, shape, num_classes)
        taught = study(section, keep_statistics=leg.returns)
        hop = Hop(own[0], teachers, nets.generator, how, taught)
        return HopSettings(
            rounds=section.rounds,
            steps=section.steps,
            distiller=distiller_of(section, kind, hop),
            nets=teachers,
            weigh=WEIGHINGS[section.teacher_weights],
            by_class=section.teacher_weights == "by_class",
            keeps_generator=kind.keeps_generator,
        )

    return {leg.stage: settings(leg) for leg in way.legs}


def distiller_of(section: ConfigDict, kind: Kind, hop: Hop) -> Distiller:
    """The distiller of a hop, given its section and its nets and sizes."""
    if section.teacher_weights == "learned":
        return with_learned_weights(kind.build, hop)
    return kind.build(hop)


def study(section: ConfigDict, *, keep_statistics: bool) -> Study:
    """How the student of a hop is trained.

    Args:
      section: the hop's.
      keep_statistics: see `Study`.
    """
    return Study(
        steps=section.student_steps,
        total_steps=section.rounds * section.steps * section.student_steps,
        learning_rate=section.learning_rate,
        temperature=section.temperature,
        keep_statistics=keep_statistics,
    )


def generation(
    config: ConfigDict, leg: Leg, shape: tuple[int, int, int], num_classes: int
) -> Generation:
    """How the images of a hop are made; see `hops` for the arguments."""
    section = config[_section(leg)]
    return Generation(
        shape=shape,
        num_classes=num_classes,
        latent_size=config.generator.latent_size,
        batch_size=section.batch_size,
        bank_size=section.bank_size,
        learning_rate=section.generator_learning_rate,
        weights=Weights(**section.weights.to_dict()),
        adversarial_mask=section.adversarial_mask,
        inner_steps=section.inner_steps,
        batchnorm_momentum=section.batchnorm_momentum,
        augmentation=Augmentation(section.shift, section.flip),
        bank_policy=section.bank_policy,
        average=section.generator_average,
        two_classes=section.two_classes,
        by_class=section.teacher_weights == "by_class",
    )


def kind_of(config: ConfigDict, leg: Leg) -> Kind:
    """The distiller of a hop, if it uses the weights that are set.

    Raises:
      ConfigError: it does not use them, no weight for its images is set, or it does not
        fit the protocol.
    """
    name = _section(leg)
    section = config[name]
    kind = DISTILLERS[section.distiller]
    if config.protocol.name == "relay_cycle" and not kind.keeps_generator:
        fitting = [other for other, kind in DISTILLERS.items() if kind.keeps_generator]
        allowed = "one whose generator devices can replay: " + ", ".join(fitting)
        raise ConfigError(f"{name}.distiller", section.distiller, allowed)
    if section.generator_average and not kind.one_generator:
        fitting = [other for other, kind in DISTILLERS.items() if kind.one_generator]
        raise ConfigError(
            f"{name}.generator_average",
            section.generator_average,
            f"0, as {section.distiller} makes each batch with a generator of its own; "
            f"those that train one are {', '.join(fitting)}",
        )
    if section.two_classes:
        _check_two_classes(config, leg, kind)
    _check_weights(name, section, kind)
    _check_teacher_weights(name, section, kind)
    return kind


def _check_two_classes(config: ConfigDict, leg: Leg, kind: Kind) -> None:
    """Refuses images between two classes where nothing can ask for them."""
    section, teachers = config[_section(leg)], _num_teachers(config, leg)
    if not kind.two_classes:
        fitting = [other for other, kind in DISTILLERS.items() if kind.two_classes]
        allowed = (
            f"0, as {section.distiller} asks each image for one class at most; only "
            f"{', '.join(fitting)} can ask for two"
        )
    elif teachers > 1:
        # Logits or statistics of several are weighted by the one label of an image.
        allowed = f"0 in a hop of {teachers} teachers: one has to know both classes"
    elif not section.weights.cross_entropy:
        allowed = "0 without weights.cross_entropy, by which images are asked for"
    else:
        return
    raise ConfigError(f"{_section(leg)}.two_classes", section.two_classes, allowed)


def _num_teachers(config: ConfigDict, leg: Leg) -> int:
    """How many teach one receiver; its own net is one, where a hop returns."""
    size = Topology(**config.topology).size
    return int(max(size(leg.sender) // size(leg.receiver), 1) + leg.returns)


def _check_teacher_weights(name: str, section: ConfigDict, kind: Kind) -> None:
    """Refuses ways to weight teachers that a distiller has no use for."""
    how = section.teacher_weights
    if how in ("by_class", "learned") and kind.learns_weights:
        raise ConfigError(
            f"{name}.teacher_weights",
            how,
            f"equal or label_counts, from which {section.distiller} learns one weight "
            "for each teacher",
        )
    if how == "learned" and not section.weights.cross_entropy:
        raise ConfigError(
            f"{name}.teacher_weights",
            how,
            "equal, label_counts or by_class, as weights are learned from images that "
            f"are made for a label, and {name}.weights.cross_entropy is 0",
        )


def _check_weights(name: str, section: ConfigDict, kind: Kind) -> None:
    """Refuses terms that a distiller lacks, and hops without any term for images."""
    for term, weight in section.weights.items():
        if weight and term not in kind.terms:
            example = "a1" if section.distiller == "relay" else section.distiller
            raise ConfigError(
                f"{name}.weights.{term}",
                weight,
                f"0, as the terms of {section.distiller} are "
                f"{', '.join(sorted(kind.terms))}; weights that fit it are in "
                f"configs/hops/{example}.py",
            )
    makes = sorted(kind.terms - {"attention"})  # this term trains only the student
    if not any(section.weights[term] for term in makes):
        raise ConfigError(
            f"{name}.weights.{makes[0]}",
            0.0,
            f"one of {', '.join(makes)} above 0: with none {section.distiller} has "
            "nothing to make images by",
        )


def _check_attention(
    config: ConfigDict, leg: Leg, nets: Nets, shape: tuple[int, int, int]
) -> None:
    """Refuses the attention loss unless it compares two maps of equal size.

    Raises:
      ConfigError: there are several teachers, or the maps differ.
    """
    teachers = _num_teachers(config, leg)
    field = f"{_section(leg)}.weights.attention"
    weight = config[_section(leg)].weights.attention
    if teachers > 1:
        allowed = f"0 in a hop of {teachers} teachers: attention is that of one"
        raise ConfigError(field, weight, allowed)
    tiers = (leg.sender, leg.receiver)
    one, other = (_stage_maps(nets.of_tier(tier)[0], shape) for tier in tiers)
    if one != other or not one:
        raise ConfigError(
            field,
            weight,
            f"0, or nets of one family, with stage maps of equal size: nets.{tiers[0]} "
            f"has {one}, nets.{tiers[1]} {other}",
        )


def _stage_maps(net: Net, shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Height and width of a net's stage maps; none of a net without convolutions."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    output = jax.eval_shape(lambda *a: net.apply(*a, train=False), variables, image)
    return [map_.shape[1:3] for map_ in output.activations if map_.ndim == 4]


def _section(leg: Leg) -> str:
    return leg.stage.replace("/", "_")
