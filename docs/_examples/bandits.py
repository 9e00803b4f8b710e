# %% ThompsonSampler
agent = pyrobbb.bandits.ThompsonSampler(n_features=2, n_actions=3, hidden=(10,), seed=0)
for context in rng.normal(size=(40, 2)):
    action = agent.act(context)
    agent.observe(context, action, reward=float(action == 1))
# %% EpsilonGreedy
agent = pyrobbb.bandits.EpsilonGreedy(n_features=2, n_actions=3, epsilon=0.1, hidden=(10,), seed=0)
action = agent.act(np.zeros(2))
agent.observe(np.zeros(2), action, reward=1.0)
# %% MushroomBandit
environment = pyrobbb.bandits.MushroomBandit(rng.normal(size=(20, 3)), labels[:20] == 1, seed=0)
context, _ = environment.reset(seed=0)
context, reward, _, _, info = environment.step(1)
# %% run
environment = pyrobbb.bandits.MushroomBandit(rng.normal(size=(20, 3)), labels[:20] == 1, seed=0)
agent = pyrobbb.bandits.ThompsonSampler(n_features=3, n_actions=2, hidden=(10,), seed=0)
print(pyrobbb.bandits.run(agent, environment, 40)[-1])  # cumulative regret
