from transfer_learning.resolvers import folder_name


def test_folder_names_are_readable_and_bounded():
    assert folder_name("model=basic_cnn,data.augment=true") == "model=basic_cnn,data.augment=true"
    here, there = (folder_name(f"model.weights=../{folder}/w.pth,model.dense=[512]") for folder in ("a b", "c"))
    assert here.startswith("model.weights=w.pth,model.dense=-512-") and here[:-8] == there[:-8] and here != there
    assert folder_name("") == "defaults"
    long = [folder_name("x" * 400 + last) for last in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200
