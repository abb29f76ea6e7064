//! How questions are worded. Names in braces are replaced.

/// The colour of `{}`.
pub(super) const COLOR: &[&str] = &[
    "What color is the {}?",
    "What is the color of the {}?",
    "Which color is the {}?",
    "Which color does the {} have?",
    "What color does the {} have?",
    "Tell me the color of the {}.",
    "What colour is the {}?",
];
/// Whether `{}` has the colour `{c}`.
pub(super) const IS_COLOR: &[&str] = &[
    "Is the {} {c}?",
    "Is the color of the {} {c}?",
    "Does the {} look {c}?",
    "Is that {} {c}?",
    "Would you say the {} is {c}?",
    "The {} is {c}, right?",
];
/// The shape of the object of colour `{c}`.
pub(super) const SHAPE: &[&str] = &[
    "What shape is the {c} object?",
    "What is the shape of the {c} object?",
    "Which shape is the {c} object?",
    "Which shape does the {c} object have?",
    "What is the {c} object?",
    "Tell me the shape of the {c} object.",
];
/// Whether the object of colour `{c}` is a `{}`.
pub(super) const IS_SHAPE: &[&str] = &[
    "Is the {c} object a {}?",
    "Does the {c} object look like a {}?",
    "Is that {c} object a {}?",
    "Is the {c} thing a {}?",
    "Would you say the {c} object is a {}?",
    "The {c} object is a {}, right?",
];
/// How many of `{}`.
pub(super) const HOW_MANY: &[&str] = &[
    "How many {} are there?",
    "How many {} do you see?",
    "How many {} can you see?",
    "How many {} are in the picture?",
    "Count the {}.",
    "What is the number of {}?",
];
/// Whether the number of objects is `{}`.
pub(super) const ARE_THERE: &[&str] = &[
    "Are there {} objects?",
    "Do you see {} objects?",
    "Can you see {} objects?",
    "Are there exactly {} objects?",
    "Are {} objects in the picture?",
    "Is the number of objects {}?",
];
/// Where `{}` is in the frame.
pub(super) const WHERE: &[&str] = &[
    "Where is the {}?",
    "Where do you see the {}?",
    "Where can you see the {}?",
    "On which side is the {}?",
    "Tell me where the {} is.",
    "Where in the picture is the {}?",
];
/// Whether `{}` is `{s}`.
pub(super) const IS_SIDE: &[&str] = &[
    "Is the {} {s}?",
    "Do you see the {} {s}?",
    "Can you see the {} {s}?",
    "Is that {} {s}?",
    "Would you say the {} is {s}?",
    "The {} is {s}, right?",
];
/// Whether `{1}` stands in the relation `{r}` to `{2}`.
pub(super) const IS_RELATED: &[&str] = &[
    "Is the {1} {r} the {2}?",
    "Do you see the {1} {r} the {2}?",
    "Can you see the {1} {r} the {2}?",
    "Is that {1} {r} the {2}?",
    "Would you say the {1} is {r} the {2}?",
    "The {1} is {r} the {2}, right?",
];
/// How `{1}` stands to `{2}`.
pub(super) const HOW_RELATED: &[&str] = &[
    "Where is the {1} relative to the {2}?",
    "Where is the {1} compared to the {2}?",
    "Where do you see the {1} relative to the {2}?",
    "How is the {1} placed relative to the {2}?",
    "Relative to the {2}, where is the {1}?",
    "Tell me where the {1} is relative to the {2}.",
];
/// Whether `{1}` is left or right of `{2}`.
pub(super) const LEFT_OR_RIGHT: &[&str] = &[
    "Is the {1} left or right of the {2}?",
    "Is the {1} on the left or on the right of the {2}?",
    "On which side of the {2} is the {1}?",
    "Do you see the {1} left or right of the {2}?",
    "Would you say the {1} is left or right of the {2}?",
    "Tell me on which side of the {2} the {1} is.",
];
/// What stands in the relation `{r}` to `{2}`.
pub(super) const WHAT_STANDS: &[&str] = &[
    "What is {r} the {2}?",
    "Which object is {r} the {2}?",
    "What do you see {r} the {2}?",
    "What can you see {r} the {2}?",
    "What object is {r} the {2}?",
    "Tell me what is {r} the {2}.",
];
/// Whether there is `{}`.
pub(super) const IS_THERE: &[&str] = &[
    "Is there {}?",
    "Do you see {}?",
    "Can you see {}?",
    "Is {} in the picture?",
    "Is there {} in the image?",
    "Does the picture show {}?",
];
/// The size of `{}`.
pub(super) const SIZE: &[&str] = &[
    "How big is the {}?",
    "How large is the {}?",
    "What size is the {}?",
    "What is the size of the {}?",
    "Is the {} small or large?",
    "Tell me the size of the {}.",
];
/// Whether `{}` is of size `{s}`.
pub(super) const IS_SIZE: &[&str] = &[
    "Is the {} {s}?",
    "Does the {} look {s}?",
    "Is that {} {s}?",
    "Is the size of the {} {s}?",
    "Would you say the {} is {s}?",
    "The {} is {s}, right?",
];
/// The state of the door.
pub(super) const DOOR: &[&str] = &[
    "Is the door open, closed or blocked?",
    "What is the state of the door?",
    "How is the door?",
    "Tell me the state of the door.",
    "Is the doorway open, closed or blocked?",
    "What is the state of the doorway?",
];
/// Whether the door is `{}`.
pub(super) const IS_DOOR: &[&str] = &[
    "Is the door {}?",
    "Is the doorway {}?",
    "Does the door look {}?",
    "Is that door {}?",
    "Would you say the door is {}?",
    "The door is {}, right?",
];
/// Whether one can go through the door.
pub(super) const CAN_PASS: &[&str] = &[
    "Can I go through the door?",
    "Can one go through the doorway?",
    "Can I pass the door?",
    "Can a robot go through the door?",
    "Is the way through the door free?",
    "Is the doorway free?",
];
/// What stands in the doorway.
pub(super) const WHAT_BLOCKS: &[&str] = &[
    "What blocks the door?",
    "What blocks the doorway?",
    "What is in the doorway?",
    "What stands in the doorway?",
    "Which object blocks the door?",
    "Tell me what blocks the door.",
];
/// The state of the lamp.
pub(super) const LAMP: &[&str] = &[
    "Is the lamp on or off?",
    "Is the light on or off?",
    "What is the state of the lamp?",
    "How is the lamp?",
    "Tell me the state of the lamp.",
    "What is the state of the light?",
];
/// Whether the lamp is `{}`.
pub(super) const IS_LAMP: &[&str] = &[
    "Is the lamp {}?",
    "Is the light {}?",
    "Is that lamp {}?",
    "Does the lamp look {}?",
    "Would you say the lamp is {}?",
    "The lamp is {}, right?",
];
/// Whether there is a person.
pub(super) const ANYONE: &[&str] = &[
    "Is anyone there?",
    "Do you see anyone?",
    "Can you see anyone?",
    "Is anyone in the picture?",
    "Is there anyone?",
    "Does the picture show anyone?",
];
