#!/usr/bin/env bash
# Screens the recipes on two tasks: validation accuracy with each option alone, everything else equal.
# Usage, from the project: benchmarks/recipes.sh PHOTOGRAPHS WEIGHTS FOLDER [SEEDS [TASKS [RECIPES]]]
# PHOTOGRAPHS are Dogs vs Cats, WEIGHTS a folder with timm's tf_efficientnet_lite0, FOLDER gets a folder for each run.
# Then: python benchmarks/tables.py recipes_scratch FOLDER/scratch-*, and recipes_finetune FOLDER/finetune-*
set -eu
photographs=$1 weights=$2 folder=$3 seeds=${4:-0} tasks=${5:-"scratch finetune"} chosen=${6:-}
common="data.root=$photographs trainer=cpu trainer.precision=32-true test=false logger=none callbacks=[checkpoints,ema] data.augment=true"
scratch="model=regularised_cnn data.image_size=96 trainer.max_epochs=30 optimizer.lr=3e-4"
finetune="model=pretrained model.backbone=timm/tf_efficientnet_lite0 model.weights=$weights model.unfreeze=block4 data.image_size=128 data.train_share=0.2 trainer.max_epochs=12 optimizer=adamw optimizer.lr=1e-3"
recipes=$(cat <<R
baseline |
random_resized_crop | data/augmentation=random_resized_crop
rand_augment | data/augmentation=[rand_augment,horizontal_flip]
color_jitter | data/augmentation=[affine,color_jitter]
label_smoothing | objective.label_smoothing=0.1
ema | callbacks.ema.decay=0.99
cosine | scheduler=cosine
one_cycle | scheduler=one_cycle
accumulation | trainer.accumulate_grad_batches=4
layer_decay | model.layer_decay=0.7
R
)
for task in $tasks; do
  while IFS='|' read -r name settings; do
    name=$(echo $name)
    [ -n "$chosen" ] && [[ " $chosen " != *" $name "* ]] && continue
    [ "$task$name" = scratchlayer_decay ] && continue  # it has no pretrained layers
    for seed in $seeds; do
      # shellcheck disable=SC2086
      python train.py $common ${!task} $settings seed=$seed hydra.run.dir="$folder/$task-$name-$seed" </dev/null
    done
  done <<<"$recipes"
done
