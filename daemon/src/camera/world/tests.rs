//! What holds for all scenes, their captions and their questions.

use std::collections::{BTreeSet, HashMap};

use super::*;

/// Scenes that no other test and no training sees.
fn scenes(count: u64) -> impl Iterator<Item = Scene> {
    (0..count).map(|seed| Scene::sample(2 * UNSEEN + seed))
}

#[test]
fn samples_are_clear_and_stay_the_same() {
    for (seed, scene) in (2 * UNSEEN..).zip(scenes(300)) {
        assert!(scene.is_clear(), "seed {seed}: {scene:?}");
        assert_eq!(scene, Scene::sample(seed));
    }
}

#[test]
fn seeds_name_the_same_scenes_for_ever() {
    // A model is trained on these scenes: whoever changes them trains it again.
    for (seed, caption, mean) in [
        (0, "A large yellow box is left of a small purple box. The door is blocked.", [163.9, 157.8, 131.7]),
        (
            3,
            "From left to right there are a small orange ring, a large orange star and a large blue ball. \
             The door is blocked. A person stands in the middle. The lamp is off.",
            [152.2, 139.3, 130.6],
        ),
        (
            UNSEEN,
            "A large yellow ball is left of a small blue cross above a large red star. \
             The door is blocked. A person stands on the left. The lamp is off.",
            [121.2, 119.6, 107.4],
        ),
    ] {
        let scene = Scene::sample(seed);
        assert_eq!(scene.caption(Style::Full), caption);
        let picture = scene.render(320, 240);
        for (channel, mean) in mean.into_iter().enumerate() {
            let sum: u64 = picture.pixels().map(|pixel| u64::from(pixel.0[channel])).sum();
            let drawn = sum as f64 / f64::from(320 * 240);
            assert!((drawn - mean).abs() < 0.3, "seed {seed}, channel {channel}: {drawn} for {mean}");
        }
    }
    let exchanges = exchanges(&Scene::sample(UNSEEN), UNSEEN);
    let middle = &exchanges[exchanges.len() / 2];
    assert_eq!((&*middle.question, &*middle.answer), ("What is left of the star?", "A yellow ball."));
}

#[test]
fn worlds_are_clear_whenever_they_rest() {
    for seed in 0..60 {
        let world = World::new(seed);
        for act in 0..12 {
            let scene = world.at(world.next_rest(f64::from(act) * 8.0));
            assert!(scene.is_clear(), "seed {seed} act {act}: {scene:?}");
        }
    }
}

#[test]
fn all_things_are_seen_about_as_often_as_they_should_be() {
    let scenes: Vec<_> = scenes(1000).collect();
    let share = |fits: &dyn Fn(&Scene) -> bool| scenes.iter().filter(|scene| fits(scene)).count();
    for count in 0..=MAX_OBJECTS {
        assert!(share(&|scene| scene.objects().len() == count) > 30, "{count} objects");
    }
    for (what, share, expected) in [
        ("door", share(&|scene| scene.door.is_some()), 520..680),
        ("person", share(&|scene| scene.person.is_some()), 320..480),
        ("lamp", share(&|scene| scene.lamp.is_some()), 430..620),
        ("open", share(&|scene| scene.door_state() == Some(DoorState::Open)), 120..320),
        ("closed", share(&|scene| scene.door_state() == Some(DoorState::Closed)), 120..320),
        ("blocked", share(&|scene| scene.door_state() == Some(DoorState::Blocked)), 120..320),
        ("object in the door", share(&|scene| scene.blocker().is_some()), 15..120),
    ] {
        assert!(expected.contains(&share), "{what}: {share} of 1000");
    }
    for relation in [Relation::Above, Relation::Inside, Relation::InFrontOf] {
        let has = |scene: &Scene| {
            scene.groups().any(|group| group.second.is_some_and(|(there, _)| there == relation))
        };
        assert!(share(&has) > 30, "{relation:?}: {}", share(&has));
    }
}

#[test]
fn own_captions_are_right_and_those_of_others_are_not() {
    let scenes: Vec<_> = scenes(400).collect();
    for (scene, other) in scenes.iter().zip(scenes.iter().skip(1)) {
        for style in Style::ALL {
            let caption = scene.caption(style);
            assert!(judge_caption(scene, &caption).exact, "{caption}");
            if other.caption(style) != caption {
                assert!(!judge_caption(scene, &other.caption(style)).exact, "{caption}");
            }
            assert!(caption.split(' ').count() <= 48, "{caption}");
        }
    }
}

/// Words of which one can stand for another.
const ALIKE: [&[&str]; 9] = [
    &["red", "orange", "yellow", "green", "blue", "purple", "white", "black"],
    &["ball", "box", "triangle", "star", "ring", "cross"],
    &["small", "large"],
    &["open", "closed", "blocked"],
    &["above", "below", "inside", "behind"],
    &["left", "right", "middle"],
    &["on", "off"],
    &["person", "lamp", "door"],
    &["of", "to"],
];

#[test]
fn a_caption_with_one_wrong_word_is_wrong() {
    for scene in scenes(150) {
        for style in Style::ALL {
            let caption = scene.caption(style);
            let words: Vec<_> = caption.split(' ').collect();
            for (index, word) in words.iter().enumerate() {
                let plain = word.trim_end_matches(['.', ',']).to_lowercase();
                for other in ALIKE.iter().filter(|words| words.contains(&plain.as_str())).copied().flatten() {
                    if *other == plain {
                        continue;
                    }
                    let mut changed = words.clone();
                    changed[index] = other;
                    let changed = changed.join(" ");
                    assert!(!judge_caption(&scene, &changed).exact, "{caption} -> {changed}");
                }
            }
        }
    }
}

#[test]
fn a_caption_that_leaves_something_out_is_wrong() {
    for scene in scenes(200) {
        let mut others = Vec::new();
        for left_out in 0..scene.objects().len() {
            let mut other = scene;
            other.objects.copy_within(left_out + 1.., left_out);
            other.count -= 1;
            others.push(other);
        }
        let (mut no_door, mut no_person, mut no_lamp) = (scene, scene, scene);
        (no_door.door, no_person.person, no_lamp.lamp) = (None, None, None);
        others.extend([no_door, no_person, no_lamp].into_iter().filter(|other| *other != scene));
        for other in others {
            let caption = other.caption(Style::Sentence);
            assert!(
                !judge_caption(&scene, &caption).exact,
                "{} -> {caption}",
                scene.caption(Style::Sentence)
            );
            assert!(!judge_caption(&other, &scene.caption(Style::Sentence)).exact);
        }
    }
}

#[test]
fn a_judgement_counts_what_is_right() {
    let scene = scenes(100)
        .find(|scene| scene.caption(Style::Sentence).matches(" is left of ").count() == 1)
        .unwrap();
    let caption = scene.caption(Style::Sentence);
    let right = judge_caption(&scene, &caption);
    assert_eq!((right.color.total, right.count.total), (scene.objects().len(), 1));
    let wrong = judge_caption(&scene, &caption.replace("left of", "right of"));
    assert_eq!((wrong.color, wrong.shape, wrong.count), (right.color, right.shape, right.count));
    assert!(wrong.relation.right < wrong.relation.total);
    let noise = judge_caption(&scene, "wibble wobble");
    assert_eq!((noise.color.right, noise.count.right, noise.exact), (0, 0, false));
    assert!(!judge_caption(&scene, "").exact);
}

#[test]
fn answers_are_judged_by_their_words() {
    for scene in scenes(100) {
        for exchange in exchanges(&scene, 3) {
            assert!(judge_answer(&exchange, &exchange.answer), "{exchange:?}");
            let bare = exchange.answer.to_lowercase().replace('.', "");
            assert!(judge_answer(&exchange, &bare), "{exchange:?}");
            assert!(!judge_answer(&exchange, "Perhaps."), "{exchange:?}");
            assert!(!judge_answer(&exchange, ""), "{exchange:?}");
        }
    }
}

#[test]
fn yes_and_no_are_equally_frequent() {
    let mut counts: HashMap<Category, [usize; 2]> = HashMap::new();
    let mut all = BTreeSet::new();
    for (seed, scene) in scenes(1500).enumerate() {
        for exchange in exchanges(&scene, seed as u64) {
            if let Some(yes) = exchange.yes {
                counts.entry(exchange.category).or_default()[usize::from(yes)] += 1;
            }
            all.insert(exchange.category.word());
        }
    }
    assert_eq!(all.len(), Category::ALL.len());
    for (category, [no, yes]) in counts {
        let share = yes as f64 / (yes + no) as f64;
        assert!((0.46..0.54).contains(&share), "{category:?}: {yes} yes, {no} no");
    }
}

#[test]
fn few_words_are_needed() {
    let mut words = BTreeSet::new();
    let mut add = |text: &str| {
        assert!(text.is_ascii());
        words.extend(text.split([' ', '.', ',', '?']).map(str::to_lowercase));
    };
    for (seed, scene) in scenes(2000).enumerate() {
        for style in Style::ALL {
            add(&scene.caption(style));
            style.prompts().iter().for_each(|prompt| add(prompt));
        }
        for exchange in exchanges(&scene, seed as u64) {
            assert!(!exchange.question.contains('{'), "{exchange:?}");
            add(&exchange.question);
            add(&exchange.answer);
        }
    }
    assert!((100..220).contains(&words.len()), "{} words: {words:?}", words.len());
}

#[test]
fn prompts_name_one_style_each() {
    for style in Style::ALL {
        for prompt in style.prompts() {
            assert_eq!(Style::of_prompt(prompt), Some(style), "{prompt}");
        }
    }
    assert_eq!(Style::of_prompt("Is there a ball?"), None);
}

#[test]
fn events_are_what_the_frames_show() {
    for seed in 0..40 {
        let world = World::new(seed);
        let events: Vec<_> = world.events(0.0).take(12).collect();
        assert!(events.is_sorted_by(|a, b| a.at <= b.at), "{events:?}");
        for event in events {
            let (before, after) = (world.at(event.begins), world.at(event.at));
            let count = |scene: &Scene, shape, color| {
                scene.objects().iter().filter(|o| (o.shape, o.color) == (shape, color)).count()
            };
            let shown = match event.what {
                Happening::Door(state) => after.door_state() == Some(state) && before.door_state().is_some(),
                Happening::Lamp(is_on) => {
                    after.lamp.unwrap().is_on() == is_on && before.lamp.unwrap().is_on() != is_on
                }
                Happening::PersonCame => before.person.is_none() && after.person.is_some(),
                Happening::PersonLeft => before.person.is_some() && after.person.is_none(),
                Happening::ObjectCame(shape, color) => {
                    (count(&before, shape, color), count(&after, shape, color)) == (0, 1)
                }
                Happening::ObjectLeft(shape, color) => {
                    (count(&before, shape, color), count(&after, shape, color)) == (1, 0)
                }
                Happening::Moved => true,
            };
            assert!(shown, "seed {seed}: {event:?}\n{before:?}\n{after:?}");
            assert_eq!(world.next_event(event.at - 0.05).unwrap().at, event.at);
        }
    }
}

#[test]
fn the_default_world_has_everything() {
    let world = World::new(UNSEEN);
    let scene = world.at(world.next_rest(0.0));
    assert_eq!(
        scene.caption(Style::Full),
        "A small red star in front of a large yellow ball is left of a small blue cross. \
         The door is closed. A person stands on the right. The lamp is off."
    );
    let events: Vec<_> = world.events(0.0).take(3).map(|event| event.what).collect();
    let door = Happening::Door(DoorState::Open);
    assert_eq!(events, [Happening::Lamp(true), door, Happening::Moved]);
}

#[test]
fn things_move_smoothly() {
    for seed in 0..20 {
        let world = World::new(seed);
        for step in 0..960 {
            let (now, next) = (world.at(f64::from(step) / 30.0), world.at(f64::from(step + 1) / 30.0));
            for object in now.objects() {
                let same = |other: &&Object| (other.shape, other.color) == (object.shape, object.color);
                if let Some(other) = next.objects().iter().find(same) {
                    let distance = (other.x - object.x).hypot(other.y - object.y);
                    assert!(distance < 0.06, "seed {seed} step {step}: {distance}");
                }
            }
        }
    }
}

#[test]
fn pictures_show_what_the_labels_say() {
    let scene = scenes(50).find(|scene| scene.objects().len() == 3).unwrap();
    let labels = scene.labels(48, 36);
    for object in scene.objects() {
        let label = Label::Object(object.shape, object.color);
        assert!(labels.iter().filter(|there| **there == label).count() > 8, "{label:?}");
    }
    assert_eq!(labels.contains(&Label::Person), scene.person.is_some());
    let lamps = labels.iter().filter(|label| matches!(label, Label::Lamp(_))).count();
    assert_eq!(lamps > 0, scene.lamp.is_some());
}

#[test]
fn objects_have_their_colours_in_any_light() {
    let mut seen = 0;
    for scene in scenes(300) {
        let picture = scene.render(320, 240);
        for object in scene.objects() {
            let (x, y) = (240.0 * (object.x + scene.shake.0), 240.0 * (object.y + scene.shake.1));
            let label = Label::Object(object.shape, object.color);
            // The middle of rings is empty, and others may stand in front.
            if scene.label_at(object.x, object.y) != label {
                continue;
            }
            let mut mean = [0.0; 3];
            for (dx, dy) in (0..9).map(|i| (i % 3 - 1, i / 3 - 1)) {
                let pixel = picture.get_pixel((x as i32 + dx) as u32, (y as i32 + dy) as u32);
                mean.iter_mut().zip(pixel.0).for_each(|(mean, byte)| *mean += f32::from(byte) / 9.0);
            }
            let apart = |color: &Color| -> f32 {
                let lit = color.rgb().into_iter().zip(scene.light.tint).map(|(channel, tint)| channel * tint);
                lit.zip(mean).map(|(lit, mean)| (lit - mean).powi(2)).sum()
            };
            let nearest = Color::ALL.iter().min_by(|a, b| apart(a).total_cmp(&apart(b))).unwrap();
            assert_eq!(*nearest, object.color, "{mean:?} in {:?}", scene.light);
            seen += 1;
        }
    }
    assert!(seen > 300, "{seen} objects");
}

#[test]
fn any_size_is_drawn() {
    let mut painter = Painter::default();
    let mut picture = image::RgbImage::default();
    for (scene, (width, height)) in scenes(6).zip([(0, 0), (1, 1), (3, 200), (200, 3), (96, 72), (4096, 17)])
    {
        painter.draw(&scene, width, height, &mut picture);
        assert_eq!(picture.dimensions(), (width.max(1), height.max(1)));
        assert!(picture == scene.render(width, height), "the memory of a painter leaves no trace");
    }
}

#[test]
fn twice_the_noise_is_twice_the_noise() {
    let scene = scenes(50).find(|scene| scene.lens.noise > 3.0 && scene.lens.noise < 5.0).unwrap();
    let quiet = scene.with_noise(0.0).render(320, 240);
    let strength = |factor: f32| {
        let noisy = scene.with_noise(factor).render(320, 240);
        let squares = noisy.iter().zip(quiet.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        (squares.sum::<f64>() / noisy.len() as f64).sqrt()
    };
    let (once, twice) = (strength(1.0), strength(2.0));
    assert!((once - f64::from(scene.lens.noise)).abs() < 0.8, "{once} for {}", scene.lens.noise);
    assert!((1.7..2.2).contains(&(twice / once)), "{once}, then {twice}");
}

#[test]
fn nonsense_times_are_the_beginning() {
    let world = World::new(1);
    for seconds in [f64::NAN, -5.0, f64::NEG_INFINITY] {
        assert_eq!(world.at(seconds), world.at(0.0));
    }
    world.at(f64::MAX);
    world.next_rest(f64::MAX);
}
