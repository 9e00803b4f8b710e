# %% nll
print(pyrobbb.scores.nll(prediction, y))  # nats per row
# %% rmse
print(pyrobbb.scores.rmse(prediction, y))
# %% coverage
print(pyrobbb.scores.coverage(prediction, y, 0.9))
# %% crps
print(pyrobbb.scores.crps(prediction, y))
# %% energy_score
print(pyrobbb.scores.energy_score(prediction, y, seed=0))
# %% error_rate
print(pyrobbb.scores.error_rate(class_prediction, labels))
# %% brier
print(pyrobbb.scores.brier(class_prediction, labels))
# %% ece
print(pyrobbb.scores.ece(class_prediction, labels))
# %% reliability
confidence, gap, share = pyrobbb.scores.reliability(class_prediction, labels, n_bins=5)
# %% pit
print(pyrobbb.scores.pit(prediction, y)[:3])  # uniform if the model is calibrated
# %% coverage_curve
print(pyrobbb.scores.coverage_curve(prediction, y, [0.5, 0.8, 0.95]))
# %% compare_log_densities
other = fit(network, x, y, kl_weight=0.1, **options).predict(x, seed=0)
log_density = np.stack([prediction.log_prob(y), other.log_prob(y)])
mean, standard_error, is_close = pyrobbb.scores.compare_log_densities(log_density)
# %% adaptive_ece
print(pyrobbb.scores.adaptive_ece(class_prediction, labels))
# %% risk_coverage
coverage, risk = pyrobbb.scores.risk_coverage(class_prediction, labels)
# %% aurc
print(pyrobbb.scores.aurc(class_prediction, labels))
# %% auroc
far = class_posterior.predict(x + 10, seed=0)
print(pyrobbb.scores.auroc(class_prediction, far))  # are distant rows more uncertain?
# %% fpr95
far = class_posterior.predict(x + 10, seed=0)
print(pyrobbb.scores.fpr95(class_prediction, far))
