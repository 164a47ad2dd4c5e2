from transfer_learning.resolvers import folder_name


def test_folder_names_are_readable_and_bounded():
    assert folder_name("model=basic_cnn,data.augment=true") == "model=basic_cnn,data.augment=true"
    assert folder_name("model.weights=../a b/w.pth,model.dense=[512]") == "model.weights=w.pth,model.dense=-512-"
    assert folder_name("") == "defaults"
    long = [folder_name("x" * 400 + last) for last in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200
